# docker build -t rankdistil .                            CPU;  --build-arg DEVICE=gpu: with CUDA, then run with --gpus all
#   --build-arg REVISION=$(git rev-parse HEAD)            the commit, for the label and result.json
# mkdir -p out && docker run --user "$(id -u):$(id -g)" -v "$PWD/out:/out" rankdistil [OVERRIDES]
#                           the main job on the embedded data; writes /out/outputs/DATE_TIME
# docker run ... -v DATA:/data:ro rankdistil reproduce NAME                     a published comparison, conf/reproduce
# docker run ... rankdistil rankdistil-rank | rankdistil-report | tensorboard | python | sh ...
# Needs no network, a read-only root file system does (--read-only --tmpfs /tmp), and so does any --user that may write /out.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG DEVICE=cpu
# The base's pip installs into it: the image that runs has none.
RUN python -m venv --without-pip /opt/rankdistil
WORKDIR /src
COPY requirements-build.lock requirements-${DEVICE}.lock ./
# setuptools first, then no build isolation: nothing that is not in a lock runs. Headers (0.4 GB) are for compiling operations.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/rankdistil/bin/python install --require-hashes -r requirements-build.lock \
    && pip --python /opt/rankdistil/bin/python install --require-hashes --no-build-isolation -r "requirements-${DEVICE}.lock" \
    && rm -r /opt/rankdistil/lib/python3*/site-packages/tensorflow/include
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/rankdistil/bin/python install --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
# libgomp1: LightGBM's threads. tini: passes SIGTERM on, so that a stopped container keeps its step and can go on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 tini \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir --mode=1777 /out
COPY --from=build /opt/rankdistil /opt/rankdistil
COPY --chmod=755 <<'SH' /usr/local/bin/entrypoint
#!/bin/sh
set -eu
case "${1:-}" in
reproduce)
    shift
    set -- rankdistil-reproduce --data /data --out /out/reproduce "$@"
    ;;
rankdistil* | tensorboard | python | sh) ;;
*) set -- rankdistil "$@" ;;
esac
exec "$@"
SH

# Whoever runs it has no home and may write only to /out and /tmp.
ENV PATH=/opt/rankdistil/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rankdistil-pipeline" \
      org.opencontainers.image.description="Knowledge distillation for learning-to-rank around the coupled RankDistil loss" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV RANKDISTIL_COMMIT=${REVISION}

USER 10001:10001
WORKDIR /out
VOLUME ["/out"]
# No HEALTHCHECK: a job that ends, with an exit code.
ENTRYPOINT ["tini", "--", "entrypoint"]
