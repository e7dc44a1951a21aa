"""The table of a run: medians of rounds, their spread, ratios; latencies from the samples of all rounds together."""
import os, re, time
from statistics import median

NAMES = ('ours', 'kafka', 'kafka-flush')
FIGURES = (('mb_s', 'MB/s'), ('rate', 'rec/s'), ('cpu_s_per_gb', 'CPU-s/GB'))
QUANTILES = (('p50', .5), ('p99', .99), ('p999', .999))
BEGIN, END = '<!-- rivals: written by bench/rivals/run --readme -->', '<!-- end of rivals -->'


def pooled(samples):
    """{workload: {name: {quantile: ms}}} of the samples that versus.py kept."""
    found = {}
    for file in sorted(os.listdir(samples)):
        workload, name, _ = file.rsplit('.', 2)
        xs = sorted(int(l) for l in open(os.path.join(samples, file)))
        if xs:
            found.setdefault(workload, {})[name] = {q: xs[min(len(xs) - 1, int(len(xs) * at))] / 1e3 for q, at in QUANTILES}
    return found


def values(rows, workload, name, key):
    return [r[key] for r in rows if r['w'] == workload and r['name'] == name and r.get(key) and r.get('ok', True) and not r.get('error')]


def frontier(rows, tails, counts):
    """{figure: {name: [(partitions, value)]}}, with what was measured only."""
    found = {'MB/s': {}, 'p99 ms': {}}
    for name in NAMES:
        for n in counts:
            rates = values(rows, f'many{n}', name, 'mb_s')
            if rates:
                found['MB/s'].setdefault(name, []).append((n, median(rates)))
            tail = tails.get(f'lat{n}', {}).get(name)
            if tail:
                found['p99 ms'].setdefault(name, []).append((n, tail['p99']))
    return found


def line(what, unit, by):
    """by: {name: [values of the rounds]}"""
    cells = []
    for name in NAMES:
        v = by.get(name)
        spread = f' ({min(v):g}–{max(v):g})' if v and len(v) > 1 else ''
        cells.append(f'{median(v):g}{spread}' if v else '–')
    ours = median(by['ours']) if by.get('ours') else None
    ratios = [f'{ours / median(by[n]):.2f} ×' if ours and by.get(n) and median(by[n]) else '–' for n in NAMES[1:]]
    return f'| {what} | {unit} | ' + ' | '.join(cells + ratios) + ' |'


HEAD = ['| workload | figure | ringmill, on disk | Kafka, page cache | Kafka, flushed | to page cache | to flushed |',
        '| --- | --- | --- | --- | --- | --- | --- |']


def lines(rows, tails, workloads):
    found = []
    for w in workloads:
        for q, _ in QUANTILES:
            by = {n: [round(t[q], 3)] for n, t in tails.get(w, {}).items() if n in NAMES}
            if by:
                found.append(line(w, f'{q} ms', by))
        for key, unit in FIGURES:
            # Megabytes say it where there are any.
            if key == 'rate' and values(rows, w, 'ours', 'mb_s'):
                continue
            by = {n: values(rows, w, n, key) for n in NAMES}
            if by['ours']:
                found.append(line(w, unit, by))
    return found


def text(rows, tails, others, counts, drawn, failed, command, rounds):
    every = list(dict.fromkeys(r['w'] for r in rows if r['w'] != 'start'))
    steps = [f'{kind}{n}' for n in counts for kind in ('lat', 'many')]
    out = [f'# ringmill and its rivals, {time.strftime("%Y-%m-%d")}', '',
           f'`{command}`, {rounds} rounds; medians, (least–most) of the rounds, ratios of ours to theirs; latencies from the samples of all',
           'rounds together. environment.txt has the machine and the versions, versus.json, redis.json and nats.json every row.', '', *HEAD,
           *lines(rows, tails, [w for w in every if w not in steps or w == 'lat1'])]
    out += ['', '## 1 KB records over many partitions, acks=all', '', 'lat: at 2,000 records a second; many: as fast as it goes.', '', *HEAD,
            *lines(rows, tails, [w for w in steps if w in every]), '']
    out += [f'![{os.path.basename(d)}]({os.path.basename(d)})' for d in drawn]
    for other, found in others:
        out += ['', f'## {other.NAME}', '']
        if not found['rows']:
            out += [f'Not measured: {found["skipped"]}.']
            continue
        out += [found['version'], '', '| clients, one message of 1,000 B outstanding each | per second | p50 ms | p99 ms |', '| --- | --- | --- | --- |']
        for clients in sorted({r['clients'] for r in found['rows']}):
            of = [r for r in found['rows'] if r['clients'] == clients]
            out.append(f'| {clients} | ' + ' | '.join(f'{median([r[k] for r in of]):g} ({min(r[k] for r in of):g}–{max(r[k] for r in of):g})' for k in ('rate', 'p50', 'p99')) + ' |')
        out += ['', f'{other.NOTE}: compare with closed1, and mind that the clients differ.']
    out += ['', 'Failed steps:', ''] + [f'- {f}' for f in failed] if failed else []
    return '\n'.join(out) + '\n'


def into_readme(readme, out, summary):
    """Replaces what stands between the marks with the first table of the summary and a link to it."""
    said = open(readme).read()
    table = [l for l in summary.split('\n## ')[0].splitlines() if l.startswith('|')]
    run = os.path.relpath(out, os.path.dirname(readme))
    part = '\n'.join([BEGIN, '', *table, '', f'From [{run}]({run}/summary.md): command, machine, versions, raw rows and the frontier over partitions.', '', END])
    if BEGIN not in said:
        raise RuntimeError(f'{readme} has no {BEGIN}')
    open(readme, 'w').write(re.sub(re.escape(BEGIN) + '.*?' + re.escape(END), lambda _: part, said, flags=re.S))
