# One image for gateways and workers:
#   docker run jetmap api …      docker run -v "$PWD:/tasks" -w /tasks jetmap worker tasks.py …
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /src
COPY pyproject.toml README.md ./
COPY cluster cluster
COPY api api
RUN pip install . && useradd --create-home --uid 10001 jetmap

USER jetmap
WORKDIR /home/jetmap
ENTRYPOINT ["jetmap"]
CMD ["--help"]
