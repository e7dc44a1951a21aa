"""Curves over the number of partitions, as SVG that shows in light and dark."""
import math, os

COLOURS = {'ours': '#d9480f', 'kafka': '#1c7ed6', 'kafka-flush': '#2b8a3e'}
TITLES = {'ours': 'ringmill, on disk', 'kafka': 'Kafka, page cache', 'kafka-flush': 'Kafka, flushed'}
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 64, 44, 40, 20
STYLE = """text{font:12px system-ui,sans-serif;fill:#333}line,path.axis{stroke:#ccc}
@media(prefers-color-scheme:dark){text{fill:#ddd}line,path.axis{stroke:#444}}"""


def ticks(low, high):
    """Powers of ten that span both."""
    return [10.0 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def frontier(out, figures):
    """One file for each figure that has points; their names."""
    drawn = []
    for figure, by in figures.items():
        points = [p for line in by.values() for p in line if p[1] > 0]
        if not points:
            continue
        path = os.path.join(out, f'frontier-{figure.split()[0].replace("/", "-").lower()}.svg')
        open(path, 'w').write(svg(figure, by, points))
        drawn.append(path)
    return drawn


def svg(figure, by, points):
    xs, ys = ticks(min(p[0] for p in points), max(p[0] for p in points)), ticks(min(p[1] for p in points), max(p[1] for p in points))
    def place(value, marks, begin, end):
        low, high = math.log10(marks[0]), math.log10(marks[-1])
        return begin + (math.log10(value) - low) / ((high - low) or 1) * (end - begin)
    x = lambda v: place(v, xs, LEFT, WIDTH - RIGHT)
    y = lambda v: place(v, ys, HEIGHT - BOTTOM, TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{figure} over partitions</title><style>{STYLE}</style>',
             f'<text x="{LEFT}" y="16">{figure}, records of 1,000 B, acks=all, over the number of partitions</text>']
    for v in ys:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/><text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>')
    for v in xs:
        parts.append(f'<line x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/><text x="{x(v):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{v:,.0f}</text>')
    for at, (name, line) in enumerate(by.items()):
        line = [p for p in line if p[1] > 0]
        if not line:
            continue
        shape = ' '.join(f'{"M" if i == 0 else "L"}{x(n):.1f} {y(v):.1f}' for i, (n, v) in enumerate(line))
        parts.append(f'<path d="{shape}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(n):.1f}" cy="{y(v):.1f}" r="3.5" fill="{COLOURS[name]}"><title>{TITLES[name]}, {n:,}: {v:g}</title></circle>' for n, v in line]
        parts.append(f'<text x="{LEFT + at * 160}" y="{HEIGHT - 6}" style="fill:{COLOURS[name]}">{TITLES[name]}</text>')
    return '\n'.join(parts) + '</svg>\n'
