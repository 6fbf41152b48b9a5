# The program in a small image without any graphics driver: it computes on the processor.
#     docker build -t mos .
#     docker run --rm -v "$PWD:/work" mos generate -p "a red cat in the snow" -o cat.png
# With NVIDIA's container runtime, `--gpus all -e NVIDIA_DRIVER_CAPABILITIES=all` brings the host's
# driver along; the loader, libvulkan1, is what an image of your own has to add then.
FROM rust:1-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --features object-store --bin mos && mkdir /out && cp target/release/mos /out/ \
    && /out/mos man /out/man1 >/dev/null

FROM debian:bookworm-slim
COPY --from=build /out/mos /usr/local/bin/mos
COPY --from=build /out/man1 /usr/local/share/man/man1
# By which object stores are known (s3://).
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Nobody's models or pictures are in the image.
WORKDIR /work
USER 1000:1000
ENV HOME=/tmp MOS_ADAPTER=cpu
ENTRYPOINT ["mos"]
CMD ["--help"]
