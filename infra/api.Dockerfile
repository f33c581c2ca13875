# The control plane: API, control loop, migrations, command line. No torch.
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY stoker ./stoker
COPY api ./api
COPY migrations ./migrations
RUN /opt/venv/bin/pip install -c constraints.txt '.[api]'

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin stoker
COPY --from=build /opt/venv /opt/venv
COPY infra/health.py /opt/stoker/health.py
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/stoker
USER stoker
EXPOSE 8000
CMD ["python", "-m", "api"]
