# spectag serve in a container. docs/how-to/serve-a-model.md says how to build and run it.
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY src src
RUN python -m venv /opt/spectag \
    && /opt/spectag/bin/pip install --no-cache-dir --no-compile '.[serve,av]'

FROM python:3.12-slim
LABEL org.opencontainers.image.title="spectag" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin spectag
COPY --from=build /opt/spectag /opt/spectag
ENV PATH="/opt/spectag/bin:$PATH" HOME=/tmp PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8765/healthz', timeout=4)"]
ENTRYPOINT ["spectag", "serve"]
CMD ["/model", "--host", "0.0.0.0"]
