"""A slice is an expression over the request, and keeps its value with the prediction."""

from pathlib import Path

import pytest
from toy_stories import stored, untrained
from toy_world import a_world, close, deliver_all, span

from mlops_assets import QualityPolicy, UnknownNameError

SLICES = {"depot": "depot", "size": "case when weight_kg < 3 then 'small' else 'large' end"}


def test_quality_is_measured_per_declared_band_of_the_request_and_the_bands_add_up(tmp_path: Path) -> None:
    world = a_world(tmp_path, untrained(quality=QualityPolicy(min_labels=5, slices=SLICES)))
    deliver_all(world.home.landing, span(0, 4))
    close(world, span(0, 4))
    quality = stored(world, "quality")
    served = quality[(quality["role"] == "served") & (quality["window_days"] == 1) & (quality["metric"] == "brier")]
    first = served[served["prediction_day"].dt.date == span(1, 1)[0]]
    counted = first[first["day"] == first["day"].min()].set_index("slice")["n"].to_dict()
    assert set(counted) == {"all", "depot=north", "depot=south", "size=small", "size=large"}
    assert counted["size=small"] + counted["size=large"] == counted["all"] == 30
    contexts = stored(world, "predictions")["context"]
    assert contexts.str.contains('"size":"small"').sum() > 0


def test_a_slice_that_reads_what_no_request_has_does_not_load() -> None:
    with pytest.raises(UnknownNameError) as caught:
        untrained(quality=QualityPolicy(slices={"size": "weight_kgs > 3"}))
    assert str(caught.value) == (
        "service 'parcels' > quality > slices > 'size': no column is named 'weight_kgs'. "
        "Did you mean 'weight_kg'? Declared: depot, predicted_at, request_id, weight_kg."
    )
