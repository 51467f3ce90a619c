# pacs-cbir on NVIDIA GPUs, for workers; what needs no GPU runs from cpu.Dockerfile's image, which is the same but for
# faiss. The driver is the host's, which its container toolkit brings in; the CUDA libraries come with PyTorch.
#
#     docker build -f docker/gpu.Dockerfile -t pacs-cbir:gpu .
#
# Debian 12 with its Python 3.11 is what the tests run on. BASE may be any image of it, one from debootstrap too.
ARG BASE=debian:12.12-slim

FROM ${BASE} AS build
# Debian keeps no former versions, so none can be asked for by number.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
RUN python3 -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*project['dependencies'], *project['optional-dependencies']['gpu'], sep='\n')" > /build/requirements.txt

# A stage of its own: a change of the code does not install the dependencies again.
FROM build AS wheel
COPY pacs_cbir pacs_cbir
COPY migrations migrations
RUN /build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get upgrade -y \
    && apt-get install -y --no-install-recommends ca-certificates python3 tzdata \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp pacs-cbir \
    && install -d -o pacs-cbir -g pacs-cbir -m 0700 /var/lib/pacs-cbir
# pip stays in the first stage.
RUN --mount=type=bind,from=build,source=/build,target=/build \
    python3 -m venv --without-pip /opt/pacs-cbir \
    && /build/bin/pip --python /opt/pacs-cbir/bin/python install --no-cache-dir -r /build/requirements.txt
RUN --mount=type=bind,from=build,source=/build,target=/build \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    /build/bin/pip --python /opt/pacs-cbir/bin/python install --no-cache-dir --no-deps /wheel/*.whl

# The container's addresses: who reaches them is said where ports are published.
ENV PATH=/opt/pacs-cbir/bin:$PATH \
    HOME=/tmp \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PACS_CBIR_DATA_DIR=/var/lib/pacs-cbir \
    PACS_CBIR_DICOM_HOST=0.0.0.0 \
    PACS_CBIR_HTTP_HOST=0.0.0.0 \
    PACS_CBIR_HL7_HOST=0.0.0.0
VOLUME /var/lib/pacs-cbir
EXPOSE 8000 11112
# By number, so that Kubernetes sees that it is not root.
USER 10001:10001
# Of `serve` and `api`; for the other roles it is `pacs-cbir health scp` and `pacs-cbir health worker`.
HEALTHCHECK --interval=30s --timeout=20s --start-period=120s CMD ["pacs-cbir", "health", "api"]
ENTRYPOINT ["pacs-cbir"]
CMD ["serve"]
