# syntax=docker/dockerfile:1.7
# A builder without a GPU (TensorRT-RTX), beat, and migrations. From the root of a clean checkout:
#   docker build -f deploy/cpu.Dockerfile -t farm-cpu:0.1.0 .
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/farm
# Torch first, from the index of its CPU builds: the default wheels bring gigabytes of CUDA along. A layer of its
# own, so that a change of farm's code does not fetch it again.
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/farm/bin/pip install --index-url https://download.pytorch.org/whl/cpu "torch>=2.13,<2.14"
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY farm farm
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/farm/bin/pip install ".[build,fleet,server]"
COPY deploy/healthcheck.py deploy/make_bucket.py /opt/farm/share/

FROM python:${PYTHON} AS run
# Not pinned: Debian keeps only the newest build of a release's package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 farm \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/farm --shell /usr/sbin/nologin farm \
    && install --directory --owner=farm --group=farm --mode=0700 /var/lib/farm /var/lib/farm/tmp
COPY --from=build /opt/farm /opt/farm
ENV PATH=/opt/farm/bin:$PATH \
    FARM_HOME=/var/lib/farm \
    TMPDIR=/var/lib/farm/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# Temporary files can be as large as engines and programs: they go to the volume, not to a small /tmp.
# A volume of each container's own, never one that containers share: what a build has left behind is told from
# one that runs by its process, and processes of other containers cannot be seen.
VOLUME ["/var/lib/farm"]
WORKDIR /var/lib/farm
USER 10001:10001
# A worker is well while the database hears from it.
HEALTHCHECK --interval=30s --timeout=20s --start-period=120s --retries=4 \
    CMD ["python", "/opt/farm/share/healthcheck.py", "worker"]
# tini reaps what a build's children leave behind, and hands SIGTERM to the worker alone, which drains.
ENTRYPOINT ["tini", "--", "farm"]
CMD ["worker"]
