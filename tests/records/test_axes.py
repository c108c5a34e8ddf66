"""Costs in full answers of the reference, whatever unit a protocol measured in."""

import numpy as np
import pytest
from support import generated_records as generated

from anytime_bench.harness.span_summary import SpanMeta, summarise_span
from anytime_bench.records.axes import exit_costs, span_unit, timing_processes
from anytime_bench.records.frame import exit_frame
from anytime_bench.records.record import Record


@pytest.fixture(scope="module")
def of_protocol() -> dict[str, Record]:
    """One run as protocol 3 records it, and as protocol 2 did: without the full answer among the span's samples."""
    record, arrays = generated.make_record("quick", images=60)
    samples = {name[5:]: array for name, array in arrays.items() if name.startswith("span_")}
    del samples["reference_answer"]
    block = summarise_span(samples, SpanMeta(device="generated", seed=0, reasons=()))
    assert record.reference is not None
    costs = {**record.reference.costs, "span": block.reference_seconds.value}
    older = record.model_copy(
        update={
            "protocol_version": "2",
            "span": block,
            "reference": record.reference.model_copy(update={"costs": costs}),
        }
    )
    return {"3": record, "2": older}


def test_on_one_lane_parallel_time_is_latency_but_for_the_model_error(of_protocol: dict[str, Record]) -> None:
    """So the span axis has the horizon of the latency axis."""
    older = of_protocol["2"]
    assert older.span is not None
    assert older.timing is not None
    one_lane = older.span.work[-1].value * span_unit(older)
    latency = older.timing.latency.ratio_to_reference[-1].value
    assert one_lane / latency == pytest.approx(1 + older.span.model_error.value)


def test_the_unit_moves_multiples_and_no_seconds(of_protocol: dict[str, Record]) -> None:
    newer, older = (exit_costs(of_protocol[protocol], "span") for protocol in "32")
    assert newer is not None
    assert older is not None
    assert span_unit(of_protocol["3"]) == 1.0
    np.testing.assert_allclose(newer.absolute, older.absolute)
    assert of_protocol["2"].span is not None
    stated = [each.value for each in of_protocol["2"].span.span]
    np.testing.assert_allclose(older.relative, np.array(stated) * span_unit(of_protocol["2"]))
    (process,) = timing_processes(of_protocol["2"], "span")
    np.testing.assert_allclose(process.run_through, older.relative)


def test_a_frame_holds_no_area_in_another_unit(of_protocol: dict[str, Record]) -> None:
    assert "auc_1_span" in exit_frame([of_protocol["3"]])
    assert "auc_1_span" not in exit_frame([of_protocol["2"]])
    assert "auc_1_span_macs" in exit_frame([of_protocol["2"]])
