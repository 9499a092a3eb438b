"""One thread: these models are too small for more, and other tests run beside them."""

import torch

torch.set_num_threads(1)
