"""P12: CPU of each core thread with 1,000 idle connections."""
from common import *


def run(rounds, small):
    count, seconds = (100, 2) if small else (1000, 20)
    with Folder('idle') as folder, Broker(os.path.join(folder, 'data')) as broker:
        broker.create('idle', 16)
        sockets = []
        body = struct.pack('>hhih', 18, 0, 7, 1) + b't'
        for _ in range(count):
            s = socket.create_connection(('127.0.0.1', PORT), timeout=5)
            s.sendall(struct.pack('>i', len(body)) + body)
            sockets.append(s)
        for s in sockets:
            assert len(s.recv(65536)) > 8, 'every connection was served once'
        time.sleep(2)
        open_now = broker.metric('ringmill_connections')
        assert open_now >= count, f'{open_now} of {count} connections are open'
        before, begin = threads_cpu_s(broker.pid), time.monotonic()
        time.sleep(seconds)
        wall = time.monotonic() - begin
        after = threads_cpu_s(broker.pid)
        for s in sockets:
            s.close()
    share = {name: (cpu - before.get(name, 0)) / wall * 100 for name, cpu in after.items()}
    cores = {name: s for name, s in share.items() if name.startswith('core')}
    assert cores, f'core threads among {sorted(share)}'
    note('CPU %, by thread: ' + ', '.join(f'{n} {s:.3f}' for n, s in sorted(share.items())))
    return [row('P12', f'busiest of {len(cores)} core threads with {count:,} idle connections, {seconds} s (process {sum(share.values()):.2f} %)',
                round(max(cores.values()), 3), '≤ 0.5 %', max(cores.values()) <= 0.5, '', '% CPU')]
