# The image of Ray head and engine pods. Targets:
#   cpu    vLLM's CPU build, the environment of `make setup`
#   gpu    vLLM for NVIDIA GPUs
#   host   no Python environment: a volume brings it at /trierarch/environment (make kind)
# From the root of the repository:
#   docker build --file deploy/images/engine.Dockerfile --target cpu --tag trierarch-engine:cpu .

ARG BASE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS system
# wget: KubeRay's probes. The libraries: what torch and a Python made elsewhere are linked to.
RUN set -e; \
    if ! command -v wget >/dev/null || [ ! -e /usr/lib/*/libnuma.so.1 ]; then \
        apt-get update; \
        apt-get install --yes --no-install-recommends wget libnuma1 libgomp1; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    useradd --uid 1000 --create-home ray
# The library path is for an interpreter that a volume brings.
ENV PATH=/opt/trierarch/bin:/trierarch/environment/bin:/usr/local/bin:/usr/bin:/bin \
    LD_LIBRARY_PATH=/trierarch/environment/python/lib \
    HOME=/home/ray \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=disabled \
    RAY_USAGE_STATS_ENABLED=0 \
    VLLM_NO_USAGE_STATS=1
WORKDIR /home/ray
USER 1000:1000

FROM ${BASE} AS tools
# A compiler is here only, for what has no wheel.
RUN --mount=type=bind,target=/context \
    python3 -m venv /opt/tools; \
    /opt/tools/bin/pip install --require-hashes -r /context/requirements/bootstrap.lock
RUN apt-get update && apt-get install --yes --no-install-recommends gcc g++ libc6-dev libnuma-dev
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1

FROM tools AS cpu-environment
RUN --mount=type=bind,target=/context set -e; \
    mkdir /tmp/source; cd /context; cp --recursive pyproject.toml README.md LICENSE platform \
        operators loadtests /tmp/source/; \
    /opt/tools/bin/uv venv --relocatable /opt/trierarch; \
    /opt/tools/bin/uv pip install --python /opt/trierarch/bin/python \
        --constraint /context/requirements/all.lock --constraint /context/requirements/torch.lock \
        --override /context/requirements/overrides.txt '/tmp/source[serving-cpu,gateway]'

FROM tools AS gpu-environment
RUN --mount=type=bind,target=/context set -e; \
    mkdir /tmp/source; cd /context; cp --recursive pyproject.toml README.md LICENSE platform \
        operators loadtests /tmp/source/; \
    /opt/tools/bin/uv venv --relocatable /opt/trierarch; \
    /opt/tools/bin/uv pip install --python /opt/trierarch/bin/python '/tmp/source[serving,gateway]'

FROM system AS host

FROM system AS gpu
COPY --from=gpu-environment /opt/trierarch /opt/trierarch

FROM system AS cpu
COPY --from=cpu-environment /opt/trierarch /opt/trierarch
