# segrl on whatever the torch wheels of the index support.
#
#   docker build -t segrl .
#   docker run --rm --gpus all -v "$PWD:/data" segrl segment photos --query "the dog" \
#     --policy geshang/Seg-R1-7B --out masks
#
# For the CPU alone the image is some gigabytes smaller with torch's CPU wheels: give the address of
# their index, which pytorch.org's installation page names, as --build-arg TORCH_INDEX=…
FROM python:3.11-slim

ARG TORCH_INDEX=""
WORKDIR /opt/segrl
COPY requirements requirements
RUN if [ -n "$TORCH_INDEX" ]; then \
      pip install --no-cache-dir --index-url "$TORCH_INDEX" --constraint requirements/tested.txt torch torchvision; \
    fi
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --constraint requirements/tested.txt ".[web]"

# Models that are downloaded are kept under /models: mount a folder there to keep them.
ENV HF_HOME=/models
RUN mkdir /models && chmod 777 /models
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["segrl"]
CMD ["--help"]
