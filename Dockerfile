# One image for all processes; docker-compose.yml says which one each container runs.
FROM python:3.13-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /app
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-default-groups
COPY api ./api
COPY db ./db
COPY workers ./workers
COPY web/ops ./web/ops
COPY beat_schedule.py ./
# The containers' file systems are read-only: what Python would compile at each start is compiled here.
RUN python -m compileall -q api db workers beat_schedule.py

FROM python:3.13-slim-bookworm
RUN groupadd --gid 10001 app && useradd --uid 10001 --gid app --no-create-home --home-dir /app app \
    && install -d -o app -g app /state
WORKDIR /app
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
CMD ["python", "-m", "api"]
