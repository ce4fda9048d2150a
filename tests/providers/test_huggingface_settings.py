"""How a local model is loaded: what may be asked for, and what transformers is told."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from llm_manager.errors import ConfigurationError, DependencyMissingError, InvalidParameterError
from llm_manager.providers.huggingface.names import model_folder
from llm_manager.providers.huggingface.settings import (
    LoadSettings,
    from_pretrained_arguments,
    load_settings,
    tokenizer_arguments,
)

from ..test_docs_tables import column, table


def everything(package: str) -> bool:
    return True


def nothing(package: str) -> bool:
    return False


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def torch() -> ModuleType:
    import torch

    return torch


# ---- what may be asked for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {}),
        ({"load_in_8bit": True}, {"quantization": "8bit"}),
        ({"load_in_4bit": True, "load_in_8bit": False}, {"quantization": "4bit"}),
        ({"load_in_8bit": True, "quantization": "8bit"}, {"quantization": "8bit"}),
        ({"torch_dtype": "float16", "device_map": "auto"}, {"dtype": "float16", "device": "auto"}),
        ({"cache_dir": Path("/x")}, {"cache_folder": "/x"}),
        ({"device": "cuda:1", "threads": 2}, {"device": "cuda:1", "threads": 2}),
        ({"max_memory": {"0": "1GiB", "cpu": 9}}, {"max_memory": {"0": "1GiB", "cpu": 9}}),
    ],
)  # fmt: skip
def test_settings_may_have_the_names_of_transformers(given, settings) -> None:
    assert load_settings("gpt2", given) == LoadSettings(model="gpt2", **settings)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"dtpye": "float16"}, "did you mean 'dtype'"),
        ({"dtype": "float61"}, "dtype must be one of .*did you mean 'float16'"),
        ({"device": "cudda"}, "device must be .*did you mean 'cuda'"),
        ({"device": "cpu:1"}, "device must be"),
        ({"quantization": "8-bit"}, "quantization must be .*did you mean '8bit'"),
        ({"quantization": {"nbits": 4}}, "must name a configuration class"),
        ({"quantization": {"config": "os.system"}}, "must name a configuration class"),
        ({"load_in_8bit": True, "load_in_4bit": True}, "load_in_4bit=.* contradicts quantization"),
        ({"load_in_8bit": "yes"}, "load_in_8bit must be True or False"),
        ({"dtype": "float16", "torch_dtype": "float32"}, "contradicts dtype='float16'"),
        ({"trust_remote_code": "no"}, "Expected `bool`"),
        ({"threads": 0}, "threads must be a whole number"),
        ({"threads": True}, "threads"),
        ({"max_memory": {}}, "max_memory must be"),
        ({"max_memory": {"gpu": "1GiB"}}, "'gpu' is no device"),
        ({"max_memory": {"0": "much"}}, "'much' is no size"),
        ({"max_memory": {"0": -1}}, "-1 is no size"),
        ({"revision": ""}, "revision must be a text"),
        ({"attn_implementation": "someone/kernels"}, "would run code from the Hub"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        load_settings("gpt2", given)


@pytest.mark.parametrize("model", ["", "  ", "a\0b", None, 7])
def test_a_model_without_a_name_is_refused(model) -> None:
    with pytest.raises(InvalidParameterError, match="model"):
        LoadSettings(model=model)


@pytest.mark.parametrize("wrong", [{"check_memory": 1}, {"threads": "2"}, {"max_memory": [1]}])
def test_a_value_of_the_wrong_type_is_refused_without_json_in_between(wrong) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        LoadSettings(model="gpt2", **wrong)


def test_settings_survive_the_way_to_another_process() -> None:
    settings = LoadSettings(
        model="org/name", quantization={"config": "HqqConfig", "nbits": 4}, max_memory={"0": "1GB"}
    )
    assert msgspec.json.decode(msgspec.json.encode(settings), type=LoadSettings) == settings


# ---- which model ---------------------------------------------------------------------------------


def test_a_folder_wins_over_a_name(tmp_path, monkeypatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_folder("org/name") == Path("org/name")
    assert model_folder(str(tmp_path / "org")) == tmp_path / "org"
    assert model_folder("org/other") is None
    assert model_folder("gpt2") is None


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("./nope", "nope' does not exist"),
        ("/nowhere/model", "does not exist"),
        ("~/surely-not-there", "does not exist"),
        ("C:\\models\\x", "does not exist"),
        ("..\\x", "does not exist"),
        ("model.gguf", "is a file, a folder is needed"),
        ("./model.gguf", "is a file, a folder is needed"),
        ("a/b/c", "neither a folder nor the name of a model"),
        ("hello world", "neither a folder nor the name of a model"),
        ("org/..", "neither a folder nor the name of a model"),
        ("https://huggingface.co/org/name", "neither a folder nor the name of a model"),
    ],
)
def test_what_is_no_model_is_said_before_transformers_sees_it(
    model, text, tmp_path, monkeypatch
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=text):
        model_folder(model)


# ---- what transformers is told -------------------------------------------------------------------


def arguments(given, transformers, torch, is_installed=everything, device=None) -> dict[str, Any]:
    return from_pretrained_arguments(
        load_settings("gpt2", given), transformers, torch, device=device, is_installed=is_installed
    )


def test_code_of_the_model_is_refused_explicitly_unless_asked_for(transformers, torch) -> None:
    for made in (
        arguments({}, transformers, torch),
        tokenizer_arguments(load_settings("gpt2")),
    ):
        assert made["trust_remote_code"] is False
        assert made["local_files_only"] is False
    trusted = load_settings("gpt2", {"trust_remote_code": True})
    assert tokenizer_arguments(trusted)["trust_remote_code"] is True


def test_the_place_and_the_version_of_the_files_are_passed_on(transformers, torch) -> None:
    given = {"revision": "v1", "cache_folder": "~/models", "local_files_only": True}
    wanted = {
        "revision": "v1",
        "cache_dir": str(Path.home() / "models"),
        "local_files_only": True,
        "trust_remote_code": False,
    }
    assert tokenizer_arguments(load_settings("gpt2", given)) == wanted
    made = arguments(given, transformers, torch)
    assert {name: made[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("dtype", "name"), [("auto", None), ("bf16", "bfloat16"), ("half", "float16")]
)
def test_a_number_format_is_torchs(dtype, name, transformers, torch) -> None:
    made = arguments({"dtype": dtype}, transformers, torch)
    assert made["dtype"] == ("auto" if name is None else getattr(torch, name))


@pytest.mark.parametrize(
    ("given", "device", "is_installed", "device_map"),
    [
        ({}, None, everything, None),
        ({"device": "cpu"}, "cuda", everything, None),
        ({}, "cuda", everything, {"": "cuda"}),
        ({"device": "cuda:1"}, None, everything, {"": "cuda:1"}),
        ({"device": "cuda:1"}, None, nothing, None),
        ({"device": "auto"}, None, everything, "auto"),
        ({"max_memory": {"cpu": "1GiB"}}, None, everything, "auto"),
    ],
)
def test_layers_are_placed_by_accelerate_only_where_it_is_of_use(
    given, device, is_installed, device_map, transformers, torch
) -> None:
    made = arguments(given, transformers, torch, is_installed, device)
    assert made.get("device_map") == device_map
    assert ("device_map" in made) is (device_map is not None)


def test_the_first_gpu_has_a_number_for_accelerate(transformers, torch) -> None:
    made = arguments({"max_memory": {"0": "1GiB", "cpu": 5}}, transformers, torch)
    assert made["max_memory"] == {0: "1GiB", "cpu": 5}


def test_8_and_4_bits_become_a_configuration_of_bitsandbytes(transformers, torch) -> None:
    made = arguments({"load_in_8bit": True}, transformers, torch)
    config = made["quantization_config"]
    assert type(config) is transformers.BitsAndBytesConfig
    assert (config.load_in_8bit, config.load_in_4bit) == (True, False)
    assert made["device_map"] == {"": "cpu"}
    assert "load_in_8bit" not in made


def test_any_configuration_of_quantization_can_be_named(transformers, torch) -> None:
    given = {"quantization": {"config": "QuantoConfig", "weights": "int4"}}
    made = arguments(given, transformers, torch)
    assert type(made["quantization_config"]) is transformers.QuantoConfig
    assert made["quantization_config"].weights == "int4"


@pytest.mark.parametrize(
    ("quantization", "text"),
    [
        ({"config": "QuantoConfg"}, "must name a configuration class"),
        ({"config": "QuntoConfig"}, "no quantization 'QuntoConfig'.*did you mean 'QuantoConfig'"),
        ({"config": "LlamaConfig"}, "no quantization 'LlamaConfig'"),
        ({"config": "QuantoConfig", "weights": "int5"}, "QuantoConfig does not accept .*int5"),
        ({"config": "GPTQConfig"}, "GPTQConfig does not accept"),
    ],
)
def test_a_wrong_quantization_is_named(quantization, text, transformers, torch) -> None:
    with pytest.raises((ConfigurationError, InvalidParameterError), match=text):
        arguments({"quantization": quantization}, transformers, torch)


def test_a_method_whose_package_is_missing_names_it(transformers, torch) -> None:
    if importlib.util.find_spec("hqq") is not None:
        pytest.skip("hqq is installed")
    with pytest.raises(DependencyMissingError, match=r"HqqConfig needs a package.*HQQ"):
        arguments({"quantization": {"config": "HqqConfig", "nbits": 4}}, transformers, torch)


@pytest.mark.parametrize(
    ("given", "missing", "text"),
    [
        ({"load_in_8bit": True}, "bitsandbytes", "pip install 'bitsandbytes"),
        ({"quantization": "4bit"}, "accelerate", "accelerate, which is not installed"),
        ({"device": "auto"}, "accelerate", "device='auto' needs .*accelerate"),
        ({"max_memory": {"cpu": 5}}, "accelerate", "max_memory needs .*accelerate"),
    ],
)
def test_a_package_that_is_missing_is_named(given, missing, text, transformers, torch) -> None:
    with pytest.raises(DependencyMissingError, match=text):
        arguments(given, transformers, torch, lambda package: package != missing)


# ---- the page ------------------------------------------------------------------------------------


def test_the_table_of_settings_has_each_of_them_in_order() -> None:
    rows = table("local_models.md", "setting", "default", "meaning")
    assert column(rows, "setting") == list(LoadSettings.__struct_fields__)
    assert [r["default"] for r in rows if r["setting"] == "`dtype`"] == ["`auto`"]
    settings = LoadSettings(model="gpt2")
    for row in rows:
        if row["default"] in ("yes", "no"):
            name = row["setting"].strip("`")
            assert getattr(settings, name) is (row["default"] == "yes"), name
