"""The interactive chart as a Vega-Lite specification, built with altair; the script fills in data and colours.

Data ``curves``: one line per breakpoint of a curve with ``cost``, ``accuracy``, ``low``, ``high``, ``series`` and, at
an exit, ``exit`` and the texts of its tooltip. Data ``cursor``: the exit that the keyboard points at.
"""

from __future__ import annotations

import json
from functools import cache


@cache
def curve_chart() -> dict[str, object]:
    """Layers: horizons, interval bands, step curves, exits, keyboard cursor."""
    import altair as alt

    hover = alt.selection_point(
        name="hover", fields=["series"], on="pointerover", nearest=False, clear="pointerout", empty=True
    )
    x = alt.X("cost:Q", title="cost", scale=alt.Scale(type="linear", nice=False))
    y = alt.Y("accuracy:Q", title="test accuracy", scale=alt.Scale(zero=True), axis=alt.Axis(format="%"))
    color = alt.Color("series:N", legend=None)
    curves = alt.Chart(alt.NamedData("curves"))
    band = curves.mark_area(interpolate="step-after", clip=True).encode(
        x=x, y=alt.Y("low:Q"), y2="high:Q", color=color,
        opacity=alt.condition(hover, alt.value(0.16), alt.value(0.03)),
    )  # fmt: skip
    line = curves.mark_line(interpolate="step-after", strokeWidth=2, clip=True).encode(
        x=x, y=y, color=color,
        strokeDash=alt.StrokeDash("series:N", legend=None),
        opacity=alt.condition(hover, alt.value(1), alt.value(0.15)),
    )  # fmt: skip
    texts = [("label", "method"), ("seed", "seed"), ("exit", "exit"), ("costText", "cost"), ("absolute", "that is"),
             ("accuracyText", "accuracy"), ("interval", "95 % interval")]  # fmt: skip
    points = (
        curves.transform_filter("isValid(datum.exit)")
        .mark_point(filled=True, size=46, clip=True)
        .encode(
            x=x, y=y, color=color,
            shape=alt.Shape("series:N", legend=None),
            opacity=alt.condition(hover, alt.value(1), alt.value(0.15)),
            tooltip=[alt.Tooltip(f"{field}:N", title=title) for field, title in texts],
        )
        .add_params(hover)
    )  # fmt: skip
    horizons = alt.Chart(alt.NamedData("horizons")).mark_rule(strokeDash=[2, 3], clip=True).encode(x=alt.X("cost:Q"))
    cursor = alt.Chart(alt.NamedData("cursor")).mark_point(size=260, strokeWidth=2.5, filled=False).encode(x=x, y=y)
    chart = alt.layer(horizons, band, line, points, cursor).properties(width="container", height=420)
    spec: dict[str, object] = json.loads(chart.to_json(validate=True))
    # The script sets scales, sizes and colours; altair's default theme would fight it.
    spec.pop("config", None)
    return spec


@cache
def script_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed with all their dependencies as one script, which needs no network."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub forgets the default
    return bundle.replace("</script", "<\\/script")
