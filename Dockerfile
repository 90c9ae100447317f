# One image for all programs: blockyardd, blockyard-node, blockyard-jobs, blockyard-stats and the blockyard CLI.
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY protos protos
COPY services services
COPY clients clients
RUN python -m venv /opt/blockyard \
    && /opt/blockyard/bin/pip install --no-cache-dir --constraint constraints.txt . \
    && /opt/blockyard/bin/pip uninstall --yes pip

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /images blockyard \
    && install --directory --owner blockyard --group blockyard --mode 0700 /images /state
COPY --from=build /opt/blockyard /opt/blockyard
ENV PATH=/opt/blockyard/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    BLOCKYARD_LISTEN=0.0.0.0:7400
USER 10001
WORKDIR /images
VOLUME /images
# What comes back after a restart: set BLOCKYARD_STATE_DIRECTORY=/state and mount a volume of one container alone there.
VOLUME /state
EXPOSE 7400
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["python", "-m", "blockyard.rpc.health"]
CMD ["blockyardd"]
