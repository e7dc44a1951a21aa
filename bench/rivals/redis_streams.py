"""Redis streams with appendfsync always: XADD of 1,000 B, one client with one command outstanding and eight of them."""
import csv, os, shutil, socket, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'targets'))
import common

NAME, FILE, NOTE = 'Redis streams, appendfsync always', 'redis', 'Its client is redis-benchmark'
CLIENTS = (1, 8)


def answers(port):
    try:
        with socket.create_connection(('127.0.0.1', port), timeout=1) as s:
            s.sendall(b'PING\r\n')
            return s.recv(5) == b'+PONG'
    except OSError:
        return False


def measure(out, rounds, scale):
    """Rows: clients, commands a second, latencies in ms. Says why when there are none."""
    server, bench = shutil.which('redis-server'), shutil.which('redis-benchmark')
    if not server or not bench:
        return dict(skipped='redis-server is not installed', rows=[])
    version = subprocess.run([server, '--version'], capture_output=True, text=True).stdout.strip()
    data = tempfile.mkdtemp(prefix='rivals-redis-', dir=os.environ.get('PEERS_DIR', tempfile.gettempdir()))
    port = common.free_port()
    command = [server, '--port', str(port), '--bind', '127.0.0.1', '--dir', data, '--appendonly', 'yes', '--appendfsync', 'always',
               '--save', '', '--auto-aof-rewrite-percentage', '0', '--daemonize', 'no']
    rows, commands = [], [' '.join(command)]
    with open(os.path.join(out, f'{FILE}.txt'), 'w') as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            begin = time.monotonic()
            while not answers(port):
                if process.poll() is not None or time.monotonic() - begin > 20:
                    return dict(skipped=f'{version} did not start, see {FILE}.txt', rows=[])
                time.sleep(0.01)
            for round_ in range(rounds):
                for clients in CLIENTS:
                    count = max(2000, int(40_000 * scale * clients))
                    run = [bench, '-p', str(port), '-c', str(clients), '-n', str(count), '--csv', '--precision', '3',
                           'XADD', f'stream-{round_}-{clients}', '*', 'v', 'x' * 1000]
                    commands.append(' '.join(run[:-1]) + ' <1000 bytes>')
                    said = subprocess.run(run, capture_output=True, text=True, timeout=300).stdout
                    found = list(csv.DictReader(l for l in said.splitlines() if l.startswith('"')))
                    if not found:
                        return dict(skipped=f'redis-benchmark said: {said[-300:]}', rows=rows)
                    row = found[0]
                    rows.append(dict(round=round_, clients=clients, n=count, rate=float(row['rps']),
                                     p50=float(row['p50_latency_ms']), p99=float(row['p99_latency_ms']), max=float(row['max_latency_ms'])))
        finally:
            process.terminate()
            process.wait(20)
            shutil.rmtree(data, ignore_errors=True)
    return dict(version=version, commands=commands, rows=rows)
