"""What the measurements of this folder share: a ringmill of their own, clients, CPU and memory from /proc, fio."""
import http.client, json, os, random, re, shutil, signal, socket, struct, subprocess, sys, tempfile, threading, time
from statistics import median

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RINGMILL = os.path.join(REPO, 'target/release/ringmill')
LOG_DISK = os.path.join(REPO, 'target/release/log-disk')
COMMITS = os.path.join(REPO, 'target/release/commits')
RAW = os.path.join(REPO, 'target/release/examples/raw')
LIBRDKAFKA = os.path.join(REPO, 'bench/peers/librdkafka.sh')


def free_port():
    """One below those that clients are given, so that none takes it while no broker runs."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(('127.0.0.1', port))
                return port
            except OSError:
                pass


# Of the broker under test; a second one has others.
PORT, ADMIN = free_port(), free_port()


class Folder:
    """A folder on the disk under test; gone when the block ends."""
    def __init__(self, name):
        self.path = tempfile.mkdtemp(prefix=f'targets-{name}-', dir=os.environ.get('PEERS_DIR', tempfile.gettempdir()))
    def __enter__(self): return self.path
    def __exit__(self, *_): shutil.rmtree(self.path, ignore_errors=True)


def answers(port=PORT, timeout=1.0):
    """Whether somebody answers an ApiVersions request (v0)."""
    try:
        with socket.create_connection(('127.0.0.1', port), timeout=timeout) as s:
            s.settimeout(timeout)
            body = struct.pack('>hhih', 18, 0, 7, 1) + b't'
            s.sendall(struct.pack('>i', len(body)) + body)
            return len(s.recv(8)) >= 8
    except OSError:
        return False


class Broker:
    """One ringmill on a data folder; `started_s` is from exec to the first ApiVersions answer."""
    def __init__(self, data, *options, wait_s=60, port=PORT, admin=ADMIN):
        self.data, self.port, self.admin = data, port, admin
        self.address = f'127.0.0.1:{port}'
        self.log = open(data + '.log', 'a')
        command = [RINGMILL, 'serve', '--listen', self.address, '--admin', f'127.0.0.1:{admin}', '--data', data, *options]
        begin = time.monotonic()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.pid = self.process.pid
        while not answers(port):
            if self.process.poll() is not None or time.monotonic() - begin > wait_s:
                self.kill()
                raise RuntimeError(f'the broker did not start: {open(data + ".log").read()[-600:]}')
            time.sleep(0.001)
        self.started_s = time.monotonic() - begin

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError('the broker did not stop within 120 s of SIGTERM')

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __enter__(self): return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.kill() if kind else self.stop()
        self.log.close()

    def rss_mib(self):
        return int(re.search(r'VmRSS:\s+(\d+)', open(f'/proc/{self.pid}/status').read()).group(1)) / 1024

    def cpu_s(self):
        fields = open(f'/proc/{self.pid}/stat').read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def metric(self, name):
        """The sum of a metric over its labels."""
        connection = http.client.HTTPConnection('127.0.0.1', self.admin, timeout=10)
        connection.request('GET', '/metrics')
        text = connection.getresponse().read().decode()
        connection.close()
        return sum(float(l.rsplit(' ', 1)[1]) for l in text.splitlines() if re.match(rf'{name}(\{{|\s)', l))

    def create(self, topic, partitions):
        check([RINGMILL, 'topic', 'create', topic, '--partitions', str(partitions), '--bootstrap-server', self.address])


def threads_cpu_s(pid):
    """CPU seconds of each thread of a process, by name and id."""
    found = {}
    for task in os.listdir(f'/proc/{pid}/task'):
        try:
            name = open(f'/proc/{pid}/task/{task}/comm').read().strip()
            found[f'{name}/{task}'] = int(open(f'/proc/{pid}/task/{task}/schedstat').read().split()[0]) / 1e9
        except (FileNotFoundError, ProcessLookupError, IndexError):
            pass
    return found


def check(command, timeout=600):
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)}: {done.stderr[-500:] or done.stdout[-500:]}')
    return done.stdout


def commit_load(broker, groups, rate, each, seconds):
    """The command that commits so many offsets a second to the topic `commits`, `each` of them in a request."""
    return [COMMITS, broker.address, *(str(int(n)) for n in (groups, rate, each, seconds))]


def first_commit(broker):
    """Whoever comes first is told to come again, while the coordinator makes its topic."""
    subprocess.run(commit_load(broker, 1, 10, 1, 1), stdout=subprocess.DEVNULL)


class Client:
    """rdkafka_performance with the given arguments: its last row, its wall time, how busy its busiest thread was."""
    def __init__(self, *arguments, port=PORT):
        self.begin = time.monotonic()
        self.process = subprocess.Popen([LIBRDKAFKA, 'perf', *arguments, '-b', f'127.0.0.1:{port}'],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.busy = {}
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()

    def watch(self):
        while self.process.poll() is None:
            try:
                self.busy.update(threads_cpu_s(self.process.pid))
            except (FileNotFoundError, ProcessLookupError):
                pass
            time.sleep(0.2)

    def wait(self, timeout=600):
        """What it printed, when it has ended or was given up; the wall time until then in `self.wall`."""
        try:
            out, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, _ = self.process.communicate()
        self.watcher.join()
        self.wall = time.monotonic() - self.begin
        return out

    def finish(self, timeout=600):
        out = self.wait(timeout)
        rows = [l for l in out.splitlines() if re.match(r'^\|\s+\d', l)]
        if not rows:
            raise RuntimeError(f'rdkafka_performance said: {out[-500:]}')
        row = [c.strip() for c in rows[-1].strip('|').split('|')]
        return row, self.wall, max(self.busy.values(), default=0) / self.wall


def produce(topic, count, size=1000, partition=None, acks=-1):
    """Sends `count` records as fast as it goes; the number that was delivered."""
    where = ['-p', str(partition)] if partition is not None else []
    client = Client('-P', '-t', topic, *where, '-s', str(size), '-c', str(count), '-a', str(acks), '-u', '-X', 'linger.ms=5',
                    '-X', 'batch.size=1000000', '-X', 'queue.buffering.max.messages=1000000')
    row, wall, busiest = client.finish()
    return int(row[4]), wall, busiest


def drop_caches():
    """True where that is allowed (root)."""
    os.sync()
    try:
        with open('/proc/sys/vm/drop_caches', 'w') as f:
            f.write('3')
        return True
    except OSError:
        return False


def fio(folder, kind, mebibytes, keep=False):
    """MB/s of sequential direct I/O at 1 MiB, 8 at a time, in a file of `mebibytes`."""
    out = check(['fio', '--name=targets', f'--directory={folder}', '--filename=targets.fio', f'--rw={kind}', '--bs=1M', '--iodepth=8',
                 '--ioengine=io_uring', '--direct=1', f'--size={mebibytes}M', '--output-format=json', *(['--end_fsync=1'] if kind == 'write' else [])])
    if not keep:
        os.unlink(os.path.join(folder, 'targets.fio'))
    return json.loads(out[out.index('{'):])['jobs'][0][kind]['bw_bytes'] / 1e6


def raw_line(*command):
    """The JSON line of one of our own loops."""
    return json.loads(check([str(c) for c in command]).strip().splitlines()[-1])


# MB/s of fio at 1 MiB, 8 at a time; filled in by cold_read and disk.
FIO_READ, FIO_WRITE = [], []


def row(target, what, measured, goal, met, limit='', unit=''):
    """One line of the table. `met` is True, False, or None where it could not be told."""
    return dict(target=target, what=what, measured=measured, unit=unit, goal=goal, met=met, limit=limit)


def note(text):
    print(f'{time.strftime("%H:%M:%S")} {text}', file=sys.stderr, flush=True)
