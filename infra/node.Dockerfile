# A node: torch with CUDA (the driver is the machine's), diffusers, and the apps that this project ships.
# Your own apps: build FROM this image and add your package, or mount it and set PYTHONPATH.
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY stoker ./stoker
COPY worker_node ./worker_node
RUN /opt/venv/bin/pip install -c constraints.txt '.[node]'

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin stoker \
 && install -d -o stoker -g stoker /var/lib/stoker
COPY --from=build /opt/venv /opt/venv
COPY infra/health.py /opt/stoker/health.py
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/stoker
USER stoker
VOLUME /var/lib/stoker
CMD ["python", "-m", "worker_node", "--app", "worker_node.apps.text_to_image:TextToImage"]
