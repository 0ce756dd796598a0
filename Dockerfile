# The whole service in one image: the proxy, TorchServe behind it on loopback, and one model.
# docs/kubernetes.md says how it is built, run and checked.

# A slim Python from 3.10 to 3.13 on Linux with glibc, its venv module included.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Which index pip asks is read from the builder's own settings, given as arguments.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
# Files compiled at random moments would differ from build to build: all are compiled below.
ENV PIP_NO_COMPILE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
WORKDIR /opt/aurea
COPY pyproject.toml LICENSE NOTICE README.md ./
COPY requirements requirements
COPY scripts scripts
COPY aurea aurea
COPY proxy proxy
COPY bench bench
COPY handler handler
COPY config.properties ./
COPY deploy/metrics.yaml deploy/log4j2.xml deploy/java_compilers.json deploy/
COPY model_store model_store
RUN python3 -m scripts.set_up
# The model that is baked in; MODEL=none leaves that to a mounted model store.
ARG MODEL=embedded
RUN mkdir -p /var/lib/aurea/model_store \
 && if [ "$MODEL" != none ]; then \
        .venv/bin/python -m scripts.package "$MODEL" --portable \
            --model-store /var/lib/aurea/model_store; \
    fi
COPY deploy/image/elf.py deploy/image/trim.py /tmp/image/
RUN .venv/bin/python /tmp/image/trim.py /opt/aurea

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="AureaVoice inference" \
      org.opencontainers.image.description="How close a voice sounds to a US speaker" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /opt/aurea /opt/aurea
COPY --from=build --chown=1000:1000 /var/lib/aurea /var/lib/aurea
# All that is written at run time lies in /run/aurea, a tmpfs, and in the model store.
ENV HOME=/run/aurea TMPDIR=/run/aurea PATH=/opt/aurea/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    AUREA_METRICS_HOST=0.0.0.0 AUREA_METRICS_PORT=9100
WORKDIR /opt/aurea
USER 1000:1000
VOLUME ["/var/lib/aurea/model_store"]
EXPOSE 8000 9100
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=3)"]
ENTRYPOINT ["python", "-m", "scripts.serve", "--host", "0.0.0.0", "--run-dir", "/run/aurea/run", \
    "--model-store", "/var/lib/aurea/model_store", "--model-cache", "/var/lib/aurea/model_store/.cache"]
CMD ["--model", "embedded"]
