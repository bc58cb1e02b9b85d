// Node's cluster, as its documentation shows it. `start N`: forks a worker N times, one after the other, and prints the
// milliseconds from fork to its `listening`. `serve PORT`: one worker, forked again when it ends.
const cluster = require('cluster');
const http = require('http');
const [mode, n] = process.argv.slice(2);

if (!cluster.isPrimary) {
  http.createServer((request, response) => response.end(String(process.pid)))
    .listen(mode === 'serve' ? Number(n) : 0, '127.0.0.1');
} else if (mode === 'serve') {
  cluster.on('exit', () => cluster.fork());
  cluster.fork();
} else {
  const next = (left) => {
    if (left === 0) return;
    const start = process.hrtime.bigint();
    const worker = cluster.fork();
    worker.once('listening', () => {
      console.log(Number(process.hrtime.bigint() - start) / 1e6);
      worker.process.kill('SIGKILL');
    });
    worker.once('exit', () => next(left - 1));
  };
  next(Number(n));
}
