# OHIF's built viewer with the extension of deploy/ohif, behind the nginx.conf that is mounted there.
#
#     docker build -f docker/ohif.Dockerfile -t pacs-cbir:ohif .
ARG BASE=debian:12.12-slim
ARG NODE=node:22-slim

FROM ${NODE} AS build
WORKDIR /build
RUN npm pack @ohif/app@3.13.2 && tar -xzf ohif-app-3.13.2.tgz && mv package/dist viewer
WORKDIR /build/ohif
COPY deploy/ohif/package.json deploy/ohif/package-lock.json deploy/ohif/tsconfig.json ./
RUN npm ci
COPY deploy/ohif/src src
RUN npm run build

FROM ${BASE}
# Debian keeps no former versions, so none can be asked for by number. What nginx writes below its folder is in /tmp, and its
# logs are the container's output, which Docker and Kubernetes give to the container's user.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get upgrade -y \
    && apt-get install -y --no-install-recommends nginx-light \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir /srv/ohif \
    && ln -s /tmp /srv/ohif/tmp \
    && ln -s /tmp/nginx.pid /srv/ohif/nginx.pid \
    && ln -s /dev/stdout /srv/ohif/access.log \
    && ln -s /dev/stderr /srv/ohif/error.log
COPY --from=build /build/viewer /srv/ohif/viewer
COPY --from=build /build/ohif/dist /srv/ohif/extension
EXPOSE 3000
USER 10001:10001
CMD ["nginx", "-e", "stderr", "-p", "/srv/ohif", "-c", "nginx.conf"]
