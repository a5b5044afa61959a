"""The pictures of bench/report.py, as SVG. Needs matplotlib."""
import matplotlib

matplotlib.use('svg')
matplotlib.rcParams.update({'svg.fonttype': 'none', 'svg.hashsalt': 'lanewise', 'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False})
from matplotlib import pyplot

COLORS = ['#3b6fb6', '#b5542f', '#6b8e4e', '#8a6fb0', '#999999', '#c9a227']


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={'Date': None})
    pyplot.close(figure)


def bars(path, title, labels, values, line=None):
    """One horizontal bar for each label; a dashed line where `line` is."""
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.3 * len(labels)))
    drawn = axes.barh(range(len(labels)), values, color=COLORS[0])
    axes.bar_label(drawn, fmt='%.2f', padding=3)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    if line is not None: axes.axvline(line, color='#666666', linestyle='--', linewidth=1)
    axes.set_title(title, loc='left')
    save(figure, path)


def groups(path, title, labels, series, unit):
    """Horizontal bars side by side; series: name -> a value for each label, None where there is none."""
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.16 * len(labels) * (len(series) + 1)))
    height = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        places = [y + i * height for y in range(len(labels))]
        drawn = axes.barh(places, [v or 0 for v in values], height, label=name, color=COLORS[i % len(COLORS)])
        axes.bar_label(drawn, [f'{v:,.0f}' if v else '' for v in values], padding=3, fontsize=7)
    axes.set_yticks([y + 0.4 - height / 2 for y in range(len(labels))], labels)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.legend(fontsize=7)
    axes.set_title(title, loc='left')
    save(figure, path)


def lines(path, title, x_label, y_label, series):
    """series: name -> [(x, y)]."""
    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    for i, (name, points) in enumerate(series.items()):
        axes.plot([x for x, _ in points], [y for _, y in points], marker='o', label=name, color=COLORS[i % len(COLORS)])
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    axes.set_title(title, loc='left')
    save(figure, path)
