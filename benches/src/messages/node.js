// Node's own way between processes: child_process.fork and send. The parent sends, a child receives; the other child can send
// to it only through the parent, because a child has a channel to nobody else.
//
// `json|advanced CPU MILLISECONDS RCLUST-BENCHES KIND:WIDTH:SIZE:MOST..`, where CPU is the receiver's or `-`
const { fork } = require('child_process');

if (process.send) work();
else lead(...process.argv.slice(2));

// JSON has no bytes: base64 is what one sends in it. The advanced serialization takes a Buffer as it is.
function load(mode, n, size) {
  const bytes = Buffer.alloc(size, n & 255);
  return { kind: 'put', n, bytes: mode === 'json' ? bytes.toString('base64') : bytes };
}

// `send` queues without bound, and returns false when that gets unwise: then the next one waits until all before it are written.
async function put(to, mode, count, size) {
  let full = false;
  for (let n = 0; n < count; n++) {
    const message = load(mode, n, size);
    if (full) {
      await new Promise((written) => to.send(message, written));
      full = false;
    } else {
      full = !to.send(message);
    }
  }
}

function work() {
  let messages = 0;
  let bytes = 0;
  process.on('disconnect', () => process.exit());
  process.on('message', async (message) => {
    switch (message.kind) {
      case 'put': {
        const { n } = message;
        const load = typeof message.bytes === 'string' ? Buffer.from(message.bytes, 'base64') : message.bytes;
        if (load[0] === (n & 255) && load[load.length - 1] === (n & 255)) {
          messages++;
          bytes += load.length;
        }
        break;
      }
      case 'ask':
        process.send({ id: message.id, answer: message.n });
        break;
      case 'tally':
        process.send({ id: message.id, answer: { messages, bytes } });
        messages = bytes = 0;
        break;
      case 'pass':
        await put(process, message.mode, message.count, message.size);
        process.send({ id: message.id, answer: null });
    }
  });
}

async function lead(mode, cpu, budget, bench, ...scenarios) {
  // The receiver is started by way of the benchmark's own program, which takes the CPU and becomes node.
  const place = cpu === '-' ? {} : { execPath: bench, execArgv: ['role', 'pinned', cpu, process.execPath] };
  const receiver = fork(__filename, [], { serialization: mode, ...place });
  const middle = fork(__filename, [], { serialization: mode });

  const open = new Map();
  let next = 0;
  const answered = ({ id, answer }) => {
    open.get(id)(answer);
    open.delete(id);
  };
  receiver.on('message', answered);
  middle.on('message', (message) => (message.kind === 'put' ? receiver.send(message) : answered(message)));
  const ask = (to, message) =>
    new Promise((answer) => {
      const id = next++;
      open.set(id, answer);
      to.send({ id, ...message });
    });

  async function askAll(count, times) {
    for (let n = 0; n < count; n++) {
      const start = process.hrtime.bigint();
      if ((await ask(receiver, { kind: 'ask', n })) !== n) throw new Error(`no echo of ${n}`);
      times.push(Number(process.hrtime.bigint() - start) / 1e9);
    }
  }

  // As the other systems are measured: until the receiver has said that it handled all.
  async function pass(kind, width, size, count) {
    const start = process.hrtime.bigint();
    const times = [];
    const each = Array.from({ length: width }, () =>
      kind === 'put' ? put(receiver, mode, count / width, size)
        : kind === 'pass' ? ask(middle, { kind: 'pass', mode, count, size })
          : askAll(count / width, times));
    await Promise.all(each);
    if (kind !== 'ask') {
      const tally = await ask(receiver, { kind: 'tally' });
      if (tally.messages !== count || tally.bytes !== count * size) {
        throw new Error(`${kind}: the receiver handled ${tally.messages} of ${count}`);
      }
    }
    return { taken: Number(process.hrtime.bigint() - start) / 1e9, times };
  }

  // Both have booted when they answer.
  await Promise.all([receiver, middle].map((child) => ask(child, { kind: 'ask', n: 0 })));
  for (const word of scenarios) {
    const [kind, ...numbers] = word.split(':');
    const [width, size, most] = numbers.map(Number);
    const seconds = Number(budget) / 1000;
    let count = width * 2;
    let counts = false;
    let taken;
    let times;
    // As src/messages/drive.rs has it: a pass counts if the one before it was long enough to choose its length by.
    for (;;) {
      ({ taken, times } = await pass(kind, width, size, count));
      const long = taken >= seconds / 4 || count >= most;
      if (counts && long) break;
      counts = long;
      const goal = long ? seconds : seconds / 3;
      const fitting = Math.floor(count * Math.min(goal / taken, 8));
      count = Math.min(Math.max(fitting, width), most);
      count -= count % width;
    }
    times.sort((a, b) => a - b);
    const told = kind === 'ask' && width === 1 ? times[times.length >> 1] : count / taken;
    console.log(`${kind}:${width}:${size}\t${told}`);
  }
  receiver.disconnect();
  middle.disconnect();
}
