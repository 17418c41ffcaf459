#!/bin/sh
# Makes an environment for policies of kind lerobot: lerobot, what its policies import, and what vla_ros needs there to
# serve them; not ROS and not vla_ros. In a policy's YAML, its folder is the parameter `environment`.
#   scripts/make_lerobot_environment.sh FOLDER [PYTHON]
# Other versions: LEROBOT=0.4.4 TORCH=2.13.0 TORCHVISION=0.28.0 scripts/make_lerobot_environment.sh FOLDER
# lerobot 0.4.4 runs its pi0 and pi0.5 with a branch of transformers that PyPI doesn't have:
#   TRANSFORMERS='transformers @ git+https://github.com/huggingface/transformers.git@fix/lerobot_openpi' ...
# torch for the CPU alone: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu TORCH=2.13.0+cpu ...
set -eu

here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 1 ]; then
    sed -n '2,8s/^# //p' "$0" >&2
    exit 2
fi
folder=$1
shift
python=$("$here/find_python.sh" "$@")
lerobot=${LEROBOT:-0.4.4} torch=${TORCH:-2.13.0} torchvision=${TORCHVISION:-0.28.0}
transformers=${TRANSFORMERS:-transformers>=4.57.1,<5}

[ -x "$folder/bin/pip" ] || "$python" -m venv "$folder"
pip() {
    "$folder/bin/python" -m pip "$@" -q --disable-pip-version-check --no-input
}

echo "making $folder: lerobot $lerobot with torch $torch (2 GB on disk without CUDA; some minutes)"
pip install "torch==$torch"
# What lerobot's policies import, as it bounds them. Of its other dependencies, which record, train and show, nothing is
# needed to answer an observation.
pip install "torch==$torch" \
    'accelerate>=1.10,<2' 'av>=15,<16' 'datasets>=4,<5' 'deepdiff>=7.0.1,<9' 'diffusers>=0.27.2,<0.36' 'draccus==0.10.0' \
    'einops>=0.8,<0.9' 'gymnasium>=1.1.1,<2' 'huggingface-hub>=0.34.2,<0.36' 'imageio>=2.34,<3' 'num2words>=0.5.14,<0.6' \
    'packaging>=24.2,<26' 'pyserial>=3.5,<4' 'safetensors>=0.4.3' 'setuptools<81' "$transformers" \
    msgpack numpy PyYAML 'websockets>=15'
# Without their dependencies: lerobot 0.4.4 asks for torch below 2.11, and runs with newer ones.
pip install --no-deps "lerobot==$lerobot" "torchvision==$torchvision"

PYTHONPATH="$(dirname "$here")" "$folder/bin/python" -W ignore -c '
from vla_ros.policies.torchvision_operators import import_torchvision
import_torchvision()
from lerobot.policies.factory import get_policy_class
for kind in ("act", "diffusion", "pi0", "pi05", "smolvla", "vqbet"):
    get_policy_class(kind)
'
echo "$folder is ready; in the policy's YAML: parameters: {environment: $(cd "$folder" && pwd), ...}"
