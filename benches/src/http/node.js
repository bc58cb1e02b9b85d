// Node's cluster, as its documentation shows it: round robin, a worker that ends is forked again. `PORT WORKERS`.
const cluster = require('cluster');
const fs = require('fs');
const http = require('http');
const [port, workers] = process.argv.slice(2).map(Number);

if (cluster.isPrimary) {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  cluster.on('exit', () => cluster.fork());
  for (let n = 0; n < workers; n++) cluster.fork();
} else {
  const answer = (request, response) => {
    const body = request.url === '/pid' ? String(process.pid) : 'hello';
    response.setHeader('content-length', body.length);
    request.url === '/work' ? setTimeout(() => response.end(body), 5) : response.end(body);
  };
  const server = http.createServer(answer);
  if (process.env.RCLUST_BENCHES_NOTES) {
    const notes = fs.openSync(process.env.RCLUST_BENCHES_NOTES, 'a');
    server.on('connection', (socket) => fs.writeSync(notes, Buffer.from(new Uint16Array([socket.remotePort]).buffer)));
  }
  server.listen({ port, host: '127.0.0.1', backlog: 1024 });
}
