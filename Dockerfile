# One image for `millstream migrate`, every `millstream worker` and `millstream sink`.
FROM python:3.13-slim AS build

RUN pip install --no-cache-dir uv==0.13.9
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/millstream
WORKDIR /source

# The lock file also holds what the local stack and the tests need. As a constraint it adds nothing, and still gives every
# package that the project itself needs its version and its hash.
COPY pyproject.toml requirements.lock ./
RUN uv venv "$VIRTUAL_ENV" \
    && uv pip install --require-hashes --constraint requirements.lock --requirements pyproject.toml

COPY . .
RUN uv pip install --no-deps .


FROM python:3.13-slim

RUN useradd --create-home --uid 10001 millstream
COPY --from=build /opt/millstream /opt/millstream
ENV PATH=/opt/millstream/bin:$PATH PYTHONUNBUFFERED=1
USER millstream
WORKDIR /home/millstream

ENTRYPOINT ["millstream"]
CMD ["--help"]
