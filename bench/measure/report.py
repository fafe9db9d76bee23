"""This knows how results are shown: a table in Markdown, and charts."""

from xml.sax.saxutils import escape

OURS, PEER = "#2a6f97", "#adb5bd"


def shown(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def verdict(results, builds):
    """For each of our builds, what is said of it: its share of the better peer, and whether that was to be reached."""
    row, fronts = results["row"], results["fronts"]
    is_less = row["better"] == "less"
    peers = [fronts[name]["median"] for name in row["against"] or fronts if name in fronts and name not in builds]
    said = []
    for name in builds:
        if name not in fronts:
            continue
        ours = fronts[name]["median"]
        target, limit = row["targets"].get(name), row["limits"].get(name)
        if peers:
            share = ours / (min(peers) if is_less else max(peers))
            bound = f"at {'most' if is_less else 'least'} {target}"
            said.append(f"{name} {share:.3g}" + _reached(target, bound, target and (share <= target) == is_less))
        if limit:
            said.append(f"{name}" + _reached(limit, f"at most {limit} {row['unit']}", ours <= limit))
    return "; ".join(said)


def _reached(target, bound, is_reached):
    return "" if target is None else f" ({bound}: {'reached' if is_reached else '**not reached**'})"


def table(all_results, builds):
    """Rows of work by fronts."""
    fronts = list(dict.fromkeys(name for results in all_results for name in results["fronts"]))
    lines = ["| work | unit | " + " | ".join(fronts) + " | of the better peer |",
             "|---|---|" + "---|" * len(fronts) + "---|"]
    for results in all_results:
        cells = []
        for name in fronts:
            got = results["fronts"].get(name)
            cells.append(f"{shown(got['median'])} ({shown(got['least'])}–{shown(got['most'])})" if got else "")
        lines.append(f"| {results['row']['says']} | {results['row']['unit']} | {' | '.join(cells)} | {verdict(results, builds)} |")
    return "\n".join(lines)


def document(about, sections, flames):
    """All that was measured on a day: a table of each section, then its charts. `flames` are the files with flame graphs, if any."""
    lines = [f"# Measured on {about['date']}", "", f"{about['machine']}.", "", *[f"- {each}" for each in about["versions"]], "",
             "What led here, what was tried in vain and what is missing to the targets stands in [bench/README.md](../README.md).", ""]
    for title, several, builds in sections:
        lines += [f"## {title}", "", _measured(several), "", table(several, builds), ""]
        lines += [f"![{each['row']['says']}]({about['date']}/{each['row']['name']}.svg)" for each in several] + [""]
    if flames:
        lines += ["## Flame graphs", "", *[f"- [{flame.stem}]({flame})" for flame in flames], ""]
    return "\n".join(lines)


def _measured(several):
    """At which commit, and in how many rounds; of rows that differ, each by its name."""
    def says(results):
        rounds = max(got["rounds"] for got in results["fronts"].values())
        return f"commit {results['commit']}, {rounds} round{'s' if rounds > 1 else ''}"

    said = {}
    for results in several:
        said.setdefault(says(results), []).append(results["row"]["name"])
    if len(said) == 1:
        return f"{next(iter(said)).capitalize()}."
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in said.items()).capitalize() + "."


def chart(results, builds):
    """Bars of one row, of which less or more is better, as the row says."""
    fronts = results["fronts"]
    says = results["row"]["says"] + ("" if results["row"]["better"] == "less" else " (more is better)")
    height, left, width = 26, 140, 420
    most = max(got["most"] for got in fronts.values()) or 1
    parts = []
    for position, (name, got) in enumerate(fronts.items()):
        top = 34 + position * height
        length = got["median"] / most * width
        low, high = (left + got[edge] / most * width for edge in ("least", "most"))
        colour = OURS if name in builds else PEER
        parts.append(
            f'<text x="{left - 8}" y="{top + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{top}" width="{length:.1f}" height="18" fill="{colour}"/>'
            f'<path d="M{low:.1f} {top + 9}H{high:.1f}" stroke="#212529"/>'
            f'<text x="{left + max(length, high - left) + 8:.1f}" y="{top + 14}">{shown(got["median"])} {results["row"]["unit"]}</text>'
        )
    total = 42 + len(fronts) * height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="710" height="{total}" font-family="sans-serif" font-size="13">'
        f'<rect width="710" height="{total}" fill="#fff"/><text x="8" y="20" font-weight="bold">'
        f'{escape(says)}</text>{"".join(parts)}</svg>\n'
    )
