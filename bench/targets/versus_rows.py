"""The targets that bench/peers/versus.py measures, read from its rows: medians of rounds, tails of pooled samples."""
import os, re
from common import FIO_READ, FIO_WRITE, median, row

# A client thread, or the machine, this busy is what limits a workload.
BUSY = 0.9


class Rows:
    def __init__(self, rows, samples):
        self.rows = rows
        self.samples = samples

    def of(self, workload, name):
        return [r for r in self.rows if r['w'] == workload and r['name'] == name and r.get('ok', True) and not r.get('error')]

    def value(self, workload, name, key):
        """Median over rounds; latency quantiles over the pooled samples, in ms."""
        if key in ('p50', 'p99', 'p999'):
            path = os.path.join(self.samples, f'{workload}.{name}.us')
            if not os.path.exists(path):
                return None
            xs = sorted(int(l) for l in open(path))
            return xs[min(len(xs) - 1, int(len(xs) * {'p50': .5, 'p99': .99, 'p999': .999}[key]))] / 1e3
        if key == 'line_rate':
            # Of the producer: "500000 records sent, 91642.8 records/sec …"; of the consumer the sixth column, nMsg.sec.
            shape = r'([\d.]+) records/sec' if workload == 'seed-produce' else r'^(?:[^,]*, ){5}([\d.]+)'
            found = [re.search(shape, r.get('line', '')) for r in self.of(workload, name)]
            found = [float(m.group(1)) for m in found if m]
            return median(found) if found else None
        found = [r[key] for r in self.of(workload, name) if r.get(key) is not None]
        return median(found) if found else None

    def limit(self, workload):
        """Which side was the limit of ours in that workload."""
        busiest, client, broker = (self.value(workload, 'ours', k) for k in ('client_busiest', 'client_cores', 'cores'))
        if busiest is None:
            return ''
        total, cpus = (client or 0) + (broker or 0), os.cpu_count()
        who = 'client' if busiest >= BUSY else 'CPUs of the machine' if total >= BUSY * cpus else 'broker or disk'
        idle = self.value(workload, 'ours', 'idle_cpus')
        rest = '' if idle is None else f', {idle:.2f} idle'
        return f'{who}: busiest client thread {busiest:.0%}, client {client:.2f} + broker {broker or 0:.2f} of {cpus} CPUs{rest}'


def floor(data, workload, key):
    """What the same client sees of a loop that does no more than an ack needs, in the same rounds."""
    least = data.value(workload, 'floor', key)
    return f'the same client and a bare loop of receive, write, flush, send: {least:g}' if least else ''


def disk_did(data, workload, kind, fio):
    """How fast the disk read or wrote, and how fast fio has it do that."""
    got = data.value(workload, 'ours', f'disk_{kind}_mb_s')
    beside = f', fio {median(fio):.0f}' if fio else ''
    return '' if got is None else f'disk {"read" if kind == "read" else "wrote"} {got:.0f} MB/s{beside}'


def disk_limits(data, workload):
    """The disk was read as fast as fio reads it."""
    got = data.value(workload, 'ours', 'disk_read_mb_s')
    return bool(got and FIO_READ) and got >= 0.9 * median(FIO_READ)


def ratio(data, target, workload, key, against, goal, at_least, excuse=None):
    ours, other = data.value(workload, 'ours', key), data.value(workload, against, key)
    if not ours or not other:
        return row(target, f'{workload} {key} / {against}', None, f'{"≥" if at_least else "≤"} {goal} ×', None, 'not measured')
    got = ours / other
    met = got >= goal if at_least else got <= goal
    disk = [disk_did(data, workload, 'read', FIO_READ) if excuse == 'disk' else '', disk_did(data, workload, 'write', FIO_WRITE)]
    limit = '; '.join(filter(None, [floor(data, workload, key), *disk, data.limit(workload)] if at_least else [floor(data, workload, key)]))
    if not met:
        met = excuse == 'client' and data.limit(workload).startswith('client') or excuse == 'disk' and disk_limits(data, workload)
    return row(target, f'{workload} {key}: {ours:g} / {other:g}', round(got, 3), f'{"≥" if at_least else "≤"} {goal} × {against}', met, limit, '×')


def ceiling(data, target, workload, key, most):
    ours = data.value(workload, 'ours', key)
    return row(target, f'{workload} {key}', ours, f'≤ {most} ms', None if ours is None else ours <= most, floor(data, workload, key), 'ms')


MORE, LESS = True, False
# target: (workload, figure, compared with, bound, direction, what at its limit counts as met)
RATIOS = {
    'P1': [('lat1', 'p50', 'kafka-flush', 0.6, LESS), ('lat1', 'p50', 'kafka', 2, LESS), ('lat1', 'p99', 'kafka-flush', 0.2, LESS),
           ('lat1', 'p99', 'kafka', 1, LESS), ('lat1', 'p999', 'kafka-flush', 0.3, LESS), ('lat1', 'p999', 'kafka', 0.7, LESS)],
    'P2': [('lat1000', 'p99', 'kafka-flush', 0.1, LESS), ('lat1000', 'p99', 'kafka', 0.5, LESS)],
    'P3': [('p1k', 'mb_s', 'kafka', 1.3, MORE, 'client'), ('p1k', 'mb_s', 'kafka-flush', 2, MORE, 'client'),
           ('four', 'mb_s', 'kafka', 1.3, MORE), ('four', 'mb_s', 'kafka-flush', 2, MORE)],
    'P3b': [('closed1', 'rate', 'kafka-flush', 2.2, MORE), ('closed100', 'rate', 'kafka-flush', 1.5, MORE)],
    'P4': [('p1k', 'cpu_s_per_gb', 'kafka', 0.4, LESS), ('many1000', 'cpu_s_per_gb', 'kafka', 0.4, LESS), ('lat1', 'cpu_us_per_msg', 'kafka', 0.5, LESS)],
    'P5': [('many1000', 'mb_s', 'kafka', 1.2, MORE), ('many1000', 'mb_s', 'kafka-flush', 2.5, MORE)],
    'P6': [('p100', 'rate', 'kafka', 1, MORE), ('p100', 'cpu_s_per_gb', 'kafka', 0.5, LESS)],
    'P7': [('c1k', 'mb_s', 'kafka', 1, MORE, 'disk'), ('c100', 'mb_s', 'kafka', 1, MORE, 'disk')],
    'P7b': [('c1k', 'cpu_s_per_gb', 'kafka', 1.6, LESS), ('c100', 'cpu_s_per_gb', 'kafka', 1.6, LESS)],
    'P9': [('p1k', 'VmRSS', 'kafka', 1, LESS)],
    'P11': [('lat1', 'p50', 'kafka-flush', 0.2, LESS), ('lat1', 'p99', 'kafka-flush', 0.05, LESS), ('lat1', 'p99', 'kafka', 1, LESS),
            ('lat1000', 'p50', 'kafka-flush', 0.2, LESS), ('lat1000', 'p99', 'kafka-flush', 0.05, LESS), ('lat1000', 'p99', 'kafka', 1, LESS),
            ('closed1', 'rate', 'kafka-flush', 2.2, MORE)],
    'P13': [('seed-produce', 'line_rate', 'kafka', 1, MORE, 'client'), ('seed-consume', 'line_rate', 'kafka', 1, MORE, 'client')],
}
WORKLOADS = {'P1': ['lat1'], 'P2': ['lat1', 'lat1000'], 'P3': ['big', 'four'], 'P3b': ['closed1', 'closed100'], 'P4': ['big', 'many', 'lat1'],
             'P5': ['many'], 'P6': ['small'], 'P7': ['big', 'small'], 'P7b': ['big', 'small'], 'P9': ['big'], 'P11': ['lat1', 'lat1000', 'closed1'], 'P13': ['seed']}


def judge(target, rows, samples):
    data = Rows(rows, samples)
    found = [ratio(data, target, *r) for r in RATIOS[target]]
    if target == 'P1':
        found += [ceiling(data, 'P1', 'lat1', 'p99', 0.6), ceiling(data, 'P1', 'lat1', 'p999', 1.5)]
    if target == 'P2':
        growth = {}
        for name in ('ours', 'kafka'):
            one, many = data.value('lat1', name, 'p50'), data.value('lat1000', name, 'p50')
            growth[name] = many / one if one and many else None
        ours, kafka = growth['ours'], growth['kafka']
        known = ours is not None and kafka is not None
        found.insert(0, row('P2', f'lat1000/lat1 at p50; kafka {kafka:.2f}' if known else 'lat1000/lat1 at p50', round(ours, 2) if known else None,
                            '≤ kafka’s own', ours <= kafka if known else None, '' if known else 'not measured', '×'))
    return found
