"""Every mistake in a pipeline file is told in one line: where, what was expected, what is near."""

import time

import pytest

from streamad.config import PipelineConfig, load_pipeline, parse_pipeline
from streamad.config.values import format_duration, parse_duration
from streamad.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: a\nserie: {}\n", "p.yaml:2: unknown setting 'serie'; did you mean 'series'?"),
        (
            "name: a\nseries:\n  kind: gauge\n  stepp: 5s\n",
            "p.yaml:4: unknown setting 'series.stepp'; did you mean 'step'?",
        ),
        (
            "name: a\nseries:\n  step: 10\n",
            "p.yaml:3: series.step: expected a duration such as 500ms, 10s, 5m, 2h or 7d, got 10",
        ),
        (
            "name: a\nseries: {lateness: 10 sec}\n",
            "p.yaml:2: series.lateness: expected a duration such as 500ms, 10s, 5m, 2h or 7d, "
            "got '10 sec'",
        ),
        ("name: a\nwindows: {size: 1}\n", "p.yaml:2: windows: size must lie in 2..8192 samples"),
        (
            "name: a\nwindows:\n  size: big\n",
            "p.yaml:3: windows.size: expected a number of samples, or auto, got 'big'",
        ),
        (
            "name: a\nwindows: {size: 10, stride: 20}\n",
            "p.yaml:2: windows: stride (20) must not exceed size (10)",
        ),
        (
            "name: a\nseries: {kind: guage}\n",
            "p.yaml:2: series.kind: expected 'auto', 'gauge', 'counter' or 'delta', got 'guage'; "
            "did you mean 'gauge'?",
        ),
        (
            "name: a\nscoring: {candidate: 2}\n",
            "p.yaml:2: scoring.candidate: expected how rare it must be: a return period such as 7d",
        ),
        ("name: a\nseries: {max_keys: many}\n", "series.max_keys: expected a whole number"),
        ("name: A b\n", "p.yaml:1: name: expected 1 to 63 lower-case letters"),
        ("input: {}\n", "p.yaml:1: name: is required"),
        ("name: a\ninput:\n", "p.yaml:2: input: expected a section ('name: value' lines)"),
        ("name: a\n b: [\n", "p.yaml:2: not YAML"),
        ("- a\n", "p.yaml:1: expected settings as 'name: value' lines, got a list"),
        ("", "p.yaml:1: expected settings as 'name: value' lines, got nothing"),
        ("name: a\nname: b\n", "p.yaml:2: 'name' is given twice in one section"),
        (
            "name: a\nseries: {step: 5s}\nwindows:\n  size: 5\n  size: 6\n",
            "p.yaml:5: 'size' is given twice in one section",
        ),
        (
            "name: a\ninput:\n  topics: ${TOPIC}\n",
            "p.yaml:3: ${TOPIC} is not set; set it in the environment, or write ${TOPIC:-default}",
        ),
        (
            "name: a\ninput: {fields: {variate: name, variates: [x]}}\n",
            "variates that come in separate records must be lined up: set series.step",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_remedy(text: str, told: str):
    with pytest.raises(ConfigError) as caught:
        parse_pipeline(text, name="p.yaml")
    assert told in str(caught.value)


def test_every_mistake_is_told_at_once_each_in_a_line():
    text = "name: a\nserie: {}\nseries: {step: 1}\nwindows: {strid: 1}\n"
    with pytest.raises(ConfigError) as caught:
        parse_pipeline(text)
    assert len(str(caught.value).splitlines()) == 3


def test_the_environment_is_put_in_and_a_default_stands_in():
    text = "name: a\ninput: {topics: '${TOPIC:-metrics}'}\nwindows: {size: '${SIZE}'}\n"
    config = parse_pipeline(text, environment={"SIZE": "32"})
    assert (config.input.topics, config.windows.size) == (("metrics",), 32)


@pytest.mark.parametrize("written", ["0s", "300ms", "90s", "5m", "2h", "7d"])
def test_a_duration_is_written_as_it_was_read(written: str):
    assert format_duration(parse_duration(written)) == written


def test_settings_as_they_are_printed_can_be_read_back():
    config = parse_pipeline("name: a\nseries: {step: 10s, silence: 5m, lateness: 1500ms}\n")
    printed = config.model_dump(mode="json")
    assert printed["series"]["lateness"] == "1500ms"
    assert PipelineConfig.model_validate(printed) == config


HIDDEN_VALUE = "hunter22-secret"


@pytest.mark.parametrize(
    "text",
    [
        "name: a\nflink: {options: '${PASSWORD}'}\n",
        "name: a\nflink: {options: {s3.secret-key: [hunter22-secret]}}\n",
        "name: a\nseries: {step: '${PASSWORD}'}\n",
        "name: a\nseries: {max_keys: 'x${PASSWORD}'}\n",
        "name: a\nseries: {step: 's3://key:hunter22-secret@bucket/x'}\n",
    ],
)
def test_a_mistake_does_not_repeat_a_secret(text):
    with pytest.raises(ConfigError) as told:
        parse_pipeline(text, name="p.yaml", environment={"PASSWORD": HIDDEN_VALUE})
    assert HIDDEN_VALUE not in str(told.value)
    assert str(told.value).startswith("p.yaml:2: ")
    assert told.value.__cause__ is None


LAUGHS = "name: a\na: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{here}: &{here} [{', '.join([f'*{below}'] * 9)}]\n"
    for below, here in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, "p.yaml:6: expected at most 20000 names and values"),
        (f"name: a # {'x' * 2_000_000}\n", "p.yaml: expected a pipeline file of at most 1048576"),
        ("name: a\ninput: &a\n  fields: *a\n", "p.yaml:3: expected a value, got '*a'"),
        ("name: a\ninput: " + "[" * 100_000, "p.yaml:2: expected at most 32 levels of nesting"),
        ("name: a\ninput: " + "{a: " * 5_000, "p.yaml:2: expected at most 32 levels of nesting"),
        (
            "name: a\n"
            + "a0: &a0 [[[[[[[x]]]]]]]\n"
            + "".join(f"a{i}: &a{i} [[[[[[[*a{i - 1}]]]]]]]\n" for i in range(1, 9)),
            "p.yaml:6: expected at most 32 levels of nesting",
        ),
        (f"name: a\ninput: [{'x, ' * 200_000}]\n", "expected at most 20000 names and values"),
        ("name: a\ninput: *nothing\n", "p.yaml:2: not YAML: found undefined alias"),
        ("name: a\ninput: 2026-13-45\n", "p.yaml: a value cannot be read"),
        (f"name: a\nwindows: {{size: {'9' * 5000}}}\n", "p.yaml: a value cannot be read"),
        (f"name: a\nseries: {{step: {'s' * 100_000}}}\n", "p.yaml:2: series.step: expected a dur"),
        ("name: a\n? {a: b}\n: c\n", "p.yaml:2: not YAML"),
    ],
    ids=lambda given: given[:40],
)
def test_a_file_that_would_take_all_time_or_memory_is_refused_in_a_short_line(text, told):
    began_s = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        parse_pipeline(text, name="p.yaml")
    assert time.monotonic() - began_s < 10
    assert told in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_a_file_too_large_is_not_read_whole(tmp_path):
    file = tmp_path / "p.yaml"
    with file.open("wb") as out:
        out.truncate(50 * 2**20)
    with pytest.raises(ConfigError, match="expected a pipeline file of at most 1048576 bytes"):
        load_pipeline(file, environment={})


def test_an_alias_within_bounds_is_read():
    config = parse_pipeline("name: a\nseries: {step: &s 10s, silence: *s}\n")
    assert config.series.silence == config.series.step == 10_000
