# MinIO is published as source only, so it is compiled here; the version is the one that the tests use.
FROM golang:1.26-trixie AS build
RUN CGO_ENABLED=0 GOBIN=/out go install -trimpath -ldflags="-s -w" \
    github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c

FROM debian:trixie-slim
RUN useradd --system --uid 10002 --home-dir /data --shell /usr/sbin/nologin minio \
 && install --directory --owner=minio --group=minio --mode=0700 /data
COPY --from=build /out/minio /usr/local/bin/minio
USER minio
VOLUME /data
EXPOSE 9000
ENTRYPOINT ["minio", "server", "--address", ":9000"]
CMD ["/data"]
