"""The Kubernetes manifests: every field is one of the published APIs, with a value of its type.

Pods, JobSets and TrainJobs are held to the models as which Kubeflow Trainer publishes its OpenAPI
description (the package kubeflow-trainer-api). The MPI operator has no such package: MPI_JOB lists
the fields that its documentation of v2beta1 names.
"""

from __future__ import annotations

import re
import shlex
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import stand_ins

yaml = pytest.importorskip("yaml", reason="found no PyYAML; the extra dev installs it")
api = pytest.importorskip(
    "kubeflow_trainer_api.models", reason="found no kubeflow-trainer-api; the extra dev installs it"
)

POD = api.IoK8sApiCoreV1PodTemplateSpec
REPLICAS = {"replicas": int, "restartPolicy": str, "template": POD}
MPI_JOB = {
    "apiVersion": str,
    "kind": str,
    "metadata": api.IoK8sApimachineryPkgApisMetaV1ObjectMeta,
    "spec": {
        "slotsPerWorker": int,
        "runLauncherAsWorker": bool,
        "sshAuthMountPath": str,
        "launcherCreationPolicy": str,
        "mpiImplementation": str,
        "runPolicy": {
            "cleanPodPolicy": str,
            "ttlSecondsAfterFinished": int,
            "activeDeadlineSeconds": int,
            "backoffLimit": int,
            "suspend": bool,
        },
        "mpiReplicaSpecs": {"Launcher": REPLICAS, "Worker": REPLICAS},
    },
}
KINDS = {
    ("kubeflow.org/v2beta1", "MPIJob"): MPI_JOB,
    ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime"): api.TrainerV1alpha1TrainingRuntime,
    ("trainer.kubeflow.org/v1alpha1", "TrainJob"): api.TrainerV1alpha1TrainJob,
}
MANIFESTS = ["mpijob.yaml", "trainjob.yaml"]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((stand_ins.LAUNCH / name).read_text()))


def complaints(value: Any, schema: Any, where: str) -> Iterator[str]:
    """What of `value` is not as `schema` says: a type, a model, or a dictionary of fields."""
    origin, inner = typing.get_origin(schema), typing.get_args(schema)
    if origin is typing.Annotated:
        yield from complaints(value, inner[0], where)
    elif origin in (typing.Union, types.UnionType):
        found = [list(complaints(value, each, where)) for each in inner if each is not type(None)]
        yield from min(found, key=len)
    elif origin is list and isinstance(value, list):
        for number, each in enumerate(value):
            yield from complaints(each, inner[0], f"{where}[{number}]")
    elif origin is dict and isinstance(value, dict):
        for key, each in value.items():
            yield from complaints(each, inner[1], f"{where}.{key}")
    elif "actual_instance" in getattr(schema, "model_fields", {}):  # a quantity, a port: 1 or "1Gi"
        if not isinstance(value, int | float | str):
            yield f"{where}: found {value!r}, expected a number or text"
    elif fields := fields_of(schema):
        if not isinstance(value, dict):
            yield f"{where}: found {value!r}, expected fields"
            return
        for key, each in value.items():
            if key not in fields:
                yield f"{where}.{key}: unknown"
            else:
                yield from complaints(each, fields[key], f"{where}.{key}")
    elif not (schema in (Any, object) or isinstance(value, origin or schema)):
        yield f"{where}: found {value!r}, expected {schema}"


def fields_of(schema: Any) -> dict[str, Any]:
    """The fields of a dictionary of fields or of a model that has some, by their names in YAML."""
    if isinstance(schema, dict):
        return schema
    return {
        field.alias or name: field.annotation
        for name, field in getattr(schema, "model_fields", {}).items()
    }


@pytest.mark.parametrize("name", MANIFESTS)
def test_fields_are_those_of_the_published_apis(name):
    for document in documents(name):
        schema = KINDS[document["apiVersion"], document["kind"]]
        assert list(complaints(document, schema, document["kind"])) == []


def test_a_slip_is_found():
    (job,) = documents("mpijob.yaml")
    worker = job["spec"]["mpiReplicaSpecs"]["Worker"]
    worker["template"]["spec"]["container"] = worker["template"]["spec"].pop("containers")
    worker["replicas"] = "4"
    job["spec"]["slots"] = 1
    assert list(complaints(job, MPI_JOB, "MPIJob")) == [
        "MPIJob.spec.mpiReplicaSpecs.Worker.replicas: found '4', expected <class 'int'>",
        "MPIJob.spec.mpiReplicaSpecs.Worker.template.spec.container: unknown",
        "MPIJob.spec.slots: unknown",
    ]


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """The specifications of pods in a manifest."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for each in value.values():
            yield from pods(each)
    elif isinstance(value, list):
        for each in value:
            yield from pods(each)


@pytest.mark.parametrize("name", MANIFESTS)
def test_nobody_is_root_and_there_is_time_for_a_checkpoint(name):
    found = [pod for document in documents(name) for pod in pods(document)]
    assert len(found) == 2
    for pod in found:
        assert pod["terminationGracePeriodSeconds"] >= 60
        (container,) = pod["containers"]
        security = container["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 1000)
        assert not security["allowPrivilegeEscalation"]
        assert [mount["name"] for mount in container["volumeMounts"]] == ["results"]
        assert [volume["name"] for volume in pod["volumes"]] == ["results"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_pod_that_ends_tells_its_rank_and_not_the_shell_that_waits(name):
    """`pkill -f` looks at whole command lines, among which is that of its own shell."""
    found = [pod for document in documents(name) for pod in pods(document)]
    containers = [container for pod in found for container in pod["containers"]]
    (hook,) = (each["lifecycle"]["preStop"]["exec"] for each in containers if "lifecycle" in each)
    shell, option, script = hook["command"]
    assert (shell, option, script.rpartition(" && ")[2]) == ("sh", "-c", "sleep 30")
    words = shlex.split(script)
    assert words[:3] == ["pkill", "-USR1", "-f"]
    assert re.search(words[3], "python -m distnet.train --out /results/run")
    assert not re.search(words[3], " ".join(hook["command"]))


def test_the_train_job_runs_on_the_runtime_beside_it():
    runtime, job = documents("trainjob.yaml")
    reference = job["spec"]["runtimeRef"]
    assert (reference["kind"], reference["name"]) == (runtime["kind"], runtime["metadata"]["name"])
    mpi = runtime["spec"]["mlPolicy"]["mpi"]
    assert mpi["mpiImplementation"] == "OpenMPI", "Trainer's controller refuses the others"
    num_ranks = job["spec"]["trainer"]["numNodes"]
    assert job["spec"]["trainer"]["args"][-2:] == ["--expect-hosts", str(num_ranks)]


def test_the_mpi_job_has_a_rank_on_each_worker():
    (job,) = documents("mpijob.yaml")
    replicas = job["spec"]["mpiReplicaSpecs"]
    (launcher,) = replicas["Launcher"]["template"]["spec"]["containers"]
    workers = str(replicas["Worker"]["replicas"] * job["spec"]["slotsPerWorker"])
    assert launcher["args"][:3] == ["mpirun", "-n", workers]
    assert launcher["args"][-2:] == ["--expect-hosts", workers]
