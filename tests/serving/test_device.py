"""The device of a server: how many processes use it, and that they use the one that was asked for."""

import pytest

from helpers.bundles import make_bundle
from helpers.devices import PretendedRuntime
from spectag.config.serving import ServeSettings
from spectag.errors import ConfigError
from spectag.serving import opening
from spectag.serving.answers import AnswerLimits, opened_tagger
from spectag.serving.application import Application


@pytest.mark.parametrize(("device", "workers", "n_processes"), [("cuda", None, 1), ("cuda", 2, 2), ("cpu", None, 3)])
def test_an_accelerator_is_used_by_one_process_and_the_cpu_by_one_per_core(
    tmp_path, monkeypatch, device, workers, n_processes
):
    PretendedRuntime(["CUDAExecutionProvider"]).use(monkeypatch)
    monkeypatch.setattr(opening, "n_usable_cores", lambda: 3)
    application = Application(ServeSettings(device=device), workers, port=0)
    application.open_now(make_bundle(tmp_path / "model"), None)
    service = application.opened.service
    assert len(service.workers._workers) == n_processes
    assert {worker._function.args[0].args[0].device for worker in service.workers._workers} == {device}
    application.opened.close()


def test_worker_opens_the_model_on_the_device_of_the_server(tmp_path):
    bundle = make_bundle(tmp_path / "model")
    assert opened_tagger(AnswerLimits(bundle, None, 60.0)).device == "auto"
    with pytest.raises(ConfigError, match="device directml"):
        opened_tagger(AnswerLimits(bundle, None, 60.0, "directml"))
