"""Keys of the features in a record: those of MediaSequence, which MediaPipe and DMVR read.

Source: ``mediapipe/util/sequence/media_sequence_util.py``.
"""

from collections.abc import Sequence

from reelmill.datasets.manifest import Clip
from reelmill.datasets.records.sequence_example import Value, serialize

EXAMPLE_ID = "example/id"
DATASET_NAME = "example/dataset_name"
DATA_PATH = "clip/data_path"
MEDIA_ID = "clip/media_id"
CLIP_START = "clip/start/timestamp"
CLIP_END = "clip/end/timestamp"
LABEL_INDEX = "clip/label/index"
LABEL_STRING = "clip/label/string"
LABEL_TEXT = "clip/label/text"

IMAGE_ENCODED = "image/encoded"
IMAGE_TIMESTAMP = "image/timestamp"
IMAGE_FORMAT = "image/format"
IMAGE_CHANNELS = "image/channels"
IMAGE_COLORSPACE = "image/colorspace"
IMAGE_HEIGHT = "image/height"
IMAGE_WIDTH = "image/width"
IMAGE_FRAME_RATE = "image/frame_rate"

FLOW_ENCODED = "FORWARD_FLOW/image/encoded"
FLOW_TIMESTAMP = "FORWARD_FLOW/image/timestamp"
FLOW_FORMAT = "FORWARD_FLOW/image/format"
FLOW_CHANNELS = "FORWARD_FLOW/image/channels"
FLOW_HEIGHT = "FORWARD_FLOW/image/height"
FLOW_WIDTH = "FORWARD_FLOW/image/width"
FLOW_FRAME_RATE = "FORWARD_FLOW/image/frame_rate"
FLOW_SATURATION = "FORWARD_FLOW/image/saturation"

# These keys follow a prefix for the kind of features, as in RGB/feature/floats.
FEATURE_FLOATS = "feature/floats"
FEATURE_BYTES = "feature/bytes"
FEATURE_TIMESTAMP = "feature/timestamp"
FEATURE_DIMENSIONS = "feature/dimensions"
FEATURE_RATE = "feature/rate"
FEATURE_DTYPE = "feature/dtype"
FEATURE_MINIMUM = "feature/minimum"
FEATURE_MAXIMUM = "feature/maximum"
FEATURE_HEIGHT = "feature/height"
FEATURE_WIDTH = "feature/width"
FEATURE_SAMPLE_RATE = "feature/sample_rate"
FEATURE_NUM_CHANNELS = "feature/num_channels"
FEATURE_NUM_SAMPLES = "feature/num_samples"

MOTION_PREFIX = "MOTION"
WAVEFORM_PREFIX = "WAVEFORM"
LOG_MEL_PREFIX = "LOG_MEL"


def prefixed(prefix: str, key: str) -> str:
    """Return a key with a prefix.

    >>> prefixed("RGB", FEATURE_FLOATS)
    'RGB/feature/floats'
    """
    return f"{prefix}/{key}"


def clip_head(clip: Clip, *, dataset: str) -> bytes:
    """Return the head of a clip's records: fields of the manifest as a serialized SequenceExample.

    Clips without start or end have no ``clip/start/timestamp`` or ``clip/end/timestamp``.
    """
    context: dict[str, Value | Sequence[Value]] = {
        EXAMPLE_ID: clip.clip_id,
        DATASET_NAME: dataset,
        DATA_PATH: clip.video,
        MEDIA_ID: clip.media_id,
        LABEL_INDEX: clip.label_index,
        LABEL_STRING: clip.labels,
        LABEL_TEXT: clip.labels,
    }
    if clip.start_us is not None:
        context[CLIP_START] = clip.start_us
    if clip.end_us is not None:
        context[CLIP_END] = clip.end_us
    return serialize({key: value for key, value in context.items() if value != []})
