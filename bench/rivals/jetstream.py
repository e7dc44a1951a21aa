"""NATS JetStream with sync_interval always: publishing 1,000 B, one client with one message outstanding and eight of them."""
import json, os, re, selectors, shutil, socket, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'targets'))
import common

NAME, FILE, NOTE = 'NATS JetStream, sync_interval always', 'nats', 'Its client is a loop over sockets in bench/rivals/jetstream.py'
SCRIPT = os.path.join(os.path.dirname(HERE), 'peers', 'nats.sh')
CLIENTS = (1, 8)
WAIT_S = 30
MESSAGE = re.compile(rb'MSG \S+ \S+ (?:\S+ )?(\d+)\r\n')


class Client:
    """One connection that has one request outstanding. Its subject for answers is its own."""

    def __init__(self, port, number):
        self.socket = socket.create_connection(('127.0.0.1', port), timeout=WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inbox, self.got = f'_INBOX.{number}'.encode(), b''
        self.socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB ' + self.inbox + b' 1\r\n')

    def request(self, subject, payload):
        self.socket.sendall(b'PUB %s %s %d\r\n%s\r\n' % (subject.encode(), self.inbox, len(payload), payload))

    def answer(self):
        """The answer that has come, or None while it has not; waits for bytes once."""
        part = self.socket.recv(65536)
        if not part:
            raise RuntimeError('the server closed a connection')
        self.got += part
        while True:
            found = MESSAGE.match(self.got)
            if found:
                end = found.end() + int(found[1]) + 2
                if len(self.got) < end:
                    return None
                body, self.got = self.got[found.end():end - 2], self.got[end:]
                said = json.loads(body)
                if 'error' in said:
                    raise RuntimeError(f'the server refused: {said["error"]}')
                return said
            line, there, rest = self.got.partition(b'\r\n')
            if not there:
                return None
            if line == b'PING':
                self.socket.sendall(b'PONG\r\n')
            elif line.startswith(b'-ERR'):
                raise RuntimeError(f'the server said {line.decode()}')
            elif line.startswith(b'MSG '):
                raise RuntimeError(f'not understood: {line[:100]}')
            self.got = rest

    def ask(self, subject, payload):
        self.request(subject, payload)
        while (said := self.answer()) is None:
            pass
        return said


def publish(port, subject, clients, count):
    """Seconds that it took, and the latency of each message in ms."""
    payload, waiting, latencies = b'x' * 1000, selectors.DefaultSelector(), []
    connections = [Client(port, n) for n in range(clients)]
    try:
        left, begin, since = count, time.monotonic(), {}
        for client in connections:
            client.socket.settimeout(WAIT_S)
            waiting.register(client.socket, selectors.EVENT_READ, client)
            since[client] = time.monotonic()
            client.request(subject, payload)
            left -= 1
        while len(latencies) < count:
            ready = waiting.select(WAIT_S)
            if not ready:
                raise RuntimeError(f'no ack for {WAIT_S} s')
            for key, _ in ready:
                client = key.data
                if client.answer() is None:
                    continue
                now = time.monotonic()
                latencies.append((now - since[client]) * 1e3)
                if left:
                    since[client], left = now, left - 1
                    client.request(subject, payload)
        return time.monotonic() - begin, latencies
    finally:
        for client in connections:
            client.socket.close()


def measure(out, rounds, scale):
    """Rows: clients, messages a second, latencies in ms. Says why when there are none."""
    if not shutil.which('go'):
        return dict(skipped='go is not installed', rows=[])
    subprocess.run([SCRIPT, 'setup'], check=True)
    data = tempfile.mkdtemp(prefix='rivals-nats-', dir=os.environ.get('PEERS_DIR', tempfile.gettempdir()))
    port, rows = common.free_port(), []
    with open(os.path.join(out, f'{FILE}.txt'), 'w') as log:
        process = subprocess.Popen([SCRIPT, 'serve', str(port), data], stdout=log, stderr=log)
        try:
            begin = time.monotonic()
            while True:
                try:
                    control = Client(port, 'control')
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() - begin > 20:
                        return dict(skipped=f'the server did not start, see {FILE}.txt', rows=[])
                    time.sleep(0.01)
            for round_ in range(rounds):
                for clients in CLIENTS:
                    name, count = f'stream-{round_}-{clients}', max(2000, int(40_000 * scale * clients))
                    stream = dict(name=name, subjects=[name], storage='file', num_replicas=1)
                    control.ask(f'$JS.API.STREAM.CREATE.{name}', json.dumps(stream).encode())
                    seconds, ms = publish(port, name, clients, count)
                    ms.sort()
                    rows.append(dict(round=round_, clients=clients, n=count, rate=round(count / seconds), p50=round(ms[count // 2], 3),
                                     p99=round(ms[int(count * .99)], 3), max=round(ms[-1], 3)))
                    control.ask(f'$JS.API.STREAM.DELETE.{name}', b'')
        finally:
            process.terminate()
            process.wait(20)
            shutil.rmtree(data, ignore_errors=True)
    return dict(version='NATS 2.15.2', commands=[f'{os.path.relpath(SCRIPT, os.path.dirname(os.path.dirname(HERE)))} serve PORT DIR'], rows=rows)
