# `deltashare serve` as one static program in an empty image.
#
#   docker build --tag deltashare .
#   docker run --publish 8080:8080 --volume "$PWD/shares.yaml:/shares.yaml:ro" deltashare \
#     serve --shares /shares.yaml --listen 0.0.0.0:8080 --public-url https://sharing.example.com

FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends musl-tools ca-certificates \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# BuildKit sets TARGETARCH; without it, the program is for the machine that builds.
ARG TARGETARCH
RUN case "${TARGETARCH:-$(uname -m)}" in \
      amd64 | x86_64) target=x86_64-unknown-linux-musl ;; \
      arm64 | aarch64) target=aarch64-unknown-linux-musl ;; \
      *) echo "there is no build for ${TARGETARCH:-$(uname -m)}" >&2; exit 1 ;; \
    esac \
 && rustup target add "$target" \
 && cargo build --release --locked --bin deltashare --no-default-features --features cli --target "$target" \
 && install -D "target/$target/release/deltashare" /image/deltashare \
 && install -D --mode=644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
COPY --from=build /image /
# A number, because the image has no list of users.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/deltashare"]
CMD ["serve", "--help"]
