"""Settings: flags over a file over defaults, checked, and the same after a round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite_bench.harness.errors import UnknownNameError, UsageError
from lite_bench.harness.options import check_options, option_parameters, split_pairs
from lite_bench.harness.settings import Settings, dump, flag, parse_bytes, read_config, recipes, resolve, validate
from tests.harness.small import small_settings


def config(text: str) -> Path:
    path = Path("settings.toml")
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_go_over_the_file_and_the_file_over_the_defaults() -> None:
    path = config(
        'learner = "cnaps"\nlr = 0.5\ntasks-per-step = 4\n[params]\ngate_penalty = 0.1\nset_statistics = "fixed"'
    )
    settings = resolve({"lr": 0.25, "learner": None, "params": {"gate_penalty": "0.2"}, "suite_options": {}}, path)
    assert (settings.learner, settings.lr, settings.tasks_per_step, settings.seed) == ("cnaps", 0.25, 4, 0)
    assert settings.params == {"gate_penalty": "0.2", "set_statistics": "fixed"}


def test_a_flag_may_be_zero_or_false() -> None:
    path = config('learner = "cnaps"\npretrained = true\nvalidate_every = 5')
    settings = resolve({"pretrained": False, "validate_every": 0}, path)
    assert (settings.pretrained, settings.validate_every) == (False, 0)


def test_no_learner_is_named_as_missing() -> None:
    with pytest.raises(UsageError, match=r"No learner is named; give LEARNER .*list learners"):
        resolve({}, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lern_rate": 1}, "no setting 'lern_rate'"),
        ({"tasks_per_stop": 1}, "Did you mean tasks_per_step"),
        ({"lr": 0}, "--lr 0 is not usable: Input should be greater than 0"),
        ({"lr": "fast"}, "--lr fast is not usable"),
        ({"precision": "fp16"}, "--precision fp16 is not usable: Input should be 'fp32', 'tf32' or 'bf16'"),
        ({"device": "gpu"}, "--device gpu is not usable"),
        ({"image_size": 4}, "--image-size 4 is not usable"),
        ({"tasks": 0}, "--tasks 0 is not usable"),
        ({"backbone_lr_scale": 0}, "--backbone-lr-scale 0 is not usable: Input should be greater than 0"),
        ({"backbone_lr_scale": float("inf")}, "--backbone-lr-scale inf is not usable"),
        ({"epoch": -1}, "--epoch -1 is not usable"),
        ({"validate_from": -1}, "--validate-from -1 is not usable"),
        ({"tasks": 1.5}, "--tasks 1.5 is not usable"),
        ({"params": 3}, "-P 3 is not usable"),
        ({"limit": -1}, "--limit -1 is not usable"),
        ({"lite_h": -1}, "--lite-h -1 is not usable"),
        ({"lite_h": "most"}, "--lite-h most is not usable"),
        ({"query_batch_size": 0}, "--query-batch-size 0 is not usable"),
        ({"memory_budget": "much"}, "--memory-budget 'much' is not usable"),
    ],
)
def test_a_bad_value_is_named_by_its_flag(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate({"learner": "protonets", **values})


@pytest.mark.parametrize(
    ("text", "amount"),
    [("16GB", 16e9), ("16 gb", 16e9), ("1.5GiB", 1.5 * 2**30), ("800MB", 8e8), ("123456B", 123456), ("2TB", 2e12)],
)
def test_amounts_of_memory(text: str, amount: float) -> None:
    assert parse_bytes(text) == amount
    assert small_settings(memory_budget=text).budget_bytes == amount


@pytest.mark.parametrize("text", ["", "16", "GB", "-1GB", "0GB", "0.1B", "16GBB", "1e3MB", "16 G B"])
def test_amounts_of_memory_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"--memory-budget .* is not usable"):
        parse_bytes(text)


def test_queries_go_by_the_batch_size_unless_they_have_their_own() -> None:
    assert small_settings(batch_size=7).query_batch == 7
    assert small_settings(batch_size=7, query_batch_size=3).query_batch == 3


def test_an_automatic_h_is_no_number_before_it_is_measured() -> None:
    settings = small_settings(lite_h="auto", memory_budget="1GB")
    with pytest.raises(UsageError, match="--lite-h auto is settled by measuring"):
        _ = settings.h
    assert settings.changed(lite_h=5).h == 5


def test_flags_over_a_table_that_is_none() -> None:
    assert resolve({"params": {"a": 1}}, config('learner = "x"\nparams = 3')).params == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"), [(b"lr = ", "not valid TOML"), (b"\xff", "not valid TOML"), (None, "cannot be read")]
)
def test_a_file_that_cannot_be_read(content: bytes | None, message: str) -> None:
    path = Path("broken.toml")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"--config broken\.toml .*{message}"):
        read_config(path)


@given(
    lr=st.none() | st.floats(1e-12, 1e3),
    pretrained=st.none() | st.booleans(),
    weights=st.none() | st.sampled_from(["a b.pth", "ä/x.safetensors"]),
    params=st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.booleans() | st.integers() | st.text()),
    seed=st.integers(0, 2**31),
    backbone_lr_scale=st.floats(1e-12, 1e3),
    epoch=st.integers(0, 10_000),
    validate_from=st.integers(0, 10_000),
)
def test_a_saved_file_gives_the_same_settings(
    tmp_path_factory: pytest.TempPathFactory, params: dict[str, Any], **values: Any
) -> None:
    settings = validate({"learner": "cnaps", "params": params, **values})
    path = tmp_path_factory.getbasetemp() / "round_trip.toml"
    path.write_bytes(dump(settings).encode())
    again = resolve({}, path)
    assert again == settings
    assert [type(value) for value in again.params.values()] == [type(value) for value in params.values()]


def test_a_changed_copy_is_validated() -> None:
    assert small_settings().changed(lr=0.5).lr == 0.5
    with pytest.raises(UsageError, match="--lr"):
        small_settings().changed(lr=-1)
    with pytest.raises(ValueError, match="frozen"):
        small_settings().lr = 1.0


def test_every_setting_has_a_flag_and_an_explanation() -> None:
    assert (flag("lite_h"), flag("params"), flag("suite_options"), flag("learner")) == (
        "--lite-h",
        "-P",
        "-S",
        "LEARNER",
    )
    assert Settings.__doc__ is not None
    for name in Settings.model_fields:
        assert f"\n        {name}: " in Settings.__doc__ or f"    {name}: " in Settings.__doc__


class Example:
    def __init__(
        self,
        backbone: "Absent",  # type: ignore[name-defined]  # noqa: F821, UP037 - imported for type checkers only
        *,
        steps: int = 50,
        scale: float | None = None,
        fast: bool = False,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        anything: Any = None,
    ) -> None: ...


def check(**options: Any) -> dict[str, Any]:
    return check_options(Example, options, "learner 'example'", "-P")


def test_options_are_the_keyword_only_parameters() -> None:
    assert list(option_parameters(Example)) == ["steps", "scale", "fast", "metric", "anything"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("false", False), ("1", True), ("no", False), ("True", True)],
)
def test_booleans_are_written_as_people_write_them(text: str, value: bool) -> None:
    assert check(fast=text)["fast"] is value


def test_text_becomes_the_annotated_type() -> None:
    typed = check(steps="7", scale="0.5", metric="cosine", anything="x")
    assert typed == {"steps": 7, "scale": 0.5, "metric": "cosine", "anything": "x"}
    assert check(steps=7, fast=True) == {"steps": 7, "fast": True}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepz": "1"}, r"no option -P of learner 'example' called 'stepz'. Did you mean steps\? Known: "),
        ({"backbone": "x"}, "no option -P of learner 'example' called 'backbone'"),
        ({"steps": "many"}, "-P steps=many of learner 'example' is not usable: .*valid integer"),
        ({"metric": "manhattan"}, "'euclidean' or 'cosine'"),
        ({"fast": "perhaps"}, "valid boolean"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(**options)
    assert issubclass(UnknownNameError, UsageError)


def test_functions_have_options_too() -> None:
    def factory(size: int, *, depth: int = 3) -> None: ...

    assert check_options(factory, {"depth": "4"}, "backbone 'x'", "-B") == {"depth": 4}


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    assert split_pairs(["a=1", "some-key=x=y", " b =", "c= d"], "-P") == {
        "a": "1",
        "some_key": "x=y",
        "b": "",
        "c": " d",
    }


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["steps"], "-P 'steps' is not of the form key=value; write for example -P"),
        (["=3"], "not of the form"),
        (["a=1", "a=2"], "-P a is given twice"),
        (["a-b=1", "a_b=2"], "-P a_b is given twice"),
    ],
)
def test_pairs_of_another_form(pairs: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_pairs(pairs, "-P")


def test_an_installed_recipe_is_read_where_there_is_no_such_file() -> None:
    name = recipes()[0]
    assert read_config(Path(name))["suite"]
    Path("recipes").mkdir()
    Path(name).write_text('learner = "own"\n')
    assert read_config(Path(name)) == {"learner": "own"}
    with pytest.raises(UsageError, match=rf"cannot be read: .* or one of {name}, "):
        read_config(Path("recipes/none.toml"))


def test_the_configuration_of_an_earlier_run_is_still_read() -> None:
    assert validate({"learner": "a", "lr_halve_every": 7}).lr_decay_every == 7
