"""The interactive chart as a Vega-Lite specification, built with altair; the script fills in data and parameters.

Data ``curves``: one line per breakpoint of a curve with ``cost``, ``accuracy``, ``low``, ``high``, ``series``, its
``color``, ``dash`` and ``shape`` and, at an exit, ``exit`` and the texts of its tooltip. Data ``cursor``: the exit that
the keyboard points at. Whatever a reader's choice changes is data or one of :data:`PARAMETERS`, so that a drawn chart
takes it without being built again; only the kind of scale, the colours' theme and the size need that.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from anytime_bench.files import cached_arrays

#: By name, with values that are there before the script sets others: where the axis starts and ends, its title, how
#: points are joined, how large they are, and how dense the bands are.
PARAMETERS = {"start": 0, "limit": 1, "title": "", "joined": "step-after", "size": 46, "band": 0.16}


@cache
def curve_chart() -> dict[str, object]:
    """Layers: horizons, interval bands, step curves, exits, keyboard cursor."""
    import altair as alt

    hover = alt.selection_point(
        name="hover", fields=["series"], on="pointerover", nearest=False, clear="pointerout", empty=True
    )
    ends = [alt.ExprRef("start"), alt.ExprRef("limit")]
    x = alt.X("cost:Q", title=None, scale=alt.Scale(type="linear", domain=ends, nice=False))
    y = alt.Y("accuracy:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    color = alt.Color("color:N", scale=None)
    series = alt.Detail("series:N")
    joined = alt.ExprRef("joined")
    curves = alt.Chart(alt.NamedData("curves"))
    band = curves.mark_area(interpolate=joined, clip=True).encode(
        x=x, y=alt.Y("low:Q", title="test accuracy"), y2="high:Q", color=color, detail=series,
        opacity=alt.condition(hover, alt.value({"expr": "band"}), alt.value({"expr": "min(band, 0.03)"})),
    )  # fmt: skip
    line = curves.mark_line(interpolate=joined, strokeWidth=2, clip=True).encode(
        x=x, y=y, color=color, detail=series,
        strokeDash=alt.StrokeDash("dash:N", scale=None),
        opacity=alt.condition(hover, alt.value(1), alt.value(0.15)),
    )  # fmt: skip
    texts = [("label", "method"), ("seed", "seed"), ("exit", "exit"), ("costText", "cost"), ("absolute", "that is"),
             ("accuracyText", "accuracy"), ("interval", "95 % interval")]  # fmt: skip
    points = (
        curves.transform_filter("isValid(datum.exit)")
        .mark_point(filled=True, size=alt.ExprRef("size"), clip=True)
        .encode(
            x=x, y=y, color=color, detail=series,
            shape=alt.Shape("shape:N", scale=None),
            opacity=alt.condition(hover, alt.value(1), alt.value(0.15)),
            tooltip=[alt.Tooltip(f"{field}:N", title=title) for field, title in texts],
        )
        .add_params(hover)
    )  # fmt: skip
    horizons = alt.Chart(alt.NamedData("horizons")).mark_rule(strokeDash=[2, 3], clip=True).encode(x=x)
    cursor = alt.Chart(alt.NamedData("cursor")).mark_point(size=260, strokeWidth=2.5, filled=False).encode(x=x, y=y)
    # The axis's own title cannot be a parameter; one below the chart can.
    title = alt.TitleParams(alt.ExprRef("title"), orient="bottom", fontSize=12, fontWeight="normal", offset=8)
    parameters = [alt.param(name=name, value=value) for name, value in PARAMETERS.items()]
    chart = alt.layer(horizons, band, line, points, cursor).add_params(*parameters)
    spec: dict[str, object] = json.loads(
        chart.properties(width="container", height=420, title=title).to_json(validate=True)
    )
    # The script sets scales, sizes and colours; altair's default theme would fight it.
    spec.pop("config", None)
    return spec


@cache
def script_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed with all their dependencies as one script, which needs no network.

    Bundling them takes a second, so a version's script is made once for all processes.
    """
    key = f"script bundle of vl-convert {version('vl-convert-python')}"
    return cached_arrays(key, _bundled)["script"].tobytes().decode()


def _bundled() -> dict[str, NDArray[np.uint8]]:
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub forgets the default
    return {"script": np.frombuffer(bundle.replace("</script", "<\\/script").encode(), dtype=np.uint8)}
