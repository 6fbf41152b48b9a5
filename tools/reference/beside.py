"""`mos` on the processor beside PyTorch, in turn in one run: the table of benches/README.md.

    python tools/reference/beside.py target/release/mos [--threads N] [--avx2] [--rounds N]

Stable Diffusion 1.5 with made-up weights in f32, 256 x 256, batch 1: a pass of the UNet, the VAE's
decoder, the text encoder (77 tokens), and a step of ED-LoRA of rank 4 (see step_cost.py). With one
thread CPU seconds, with more elapsed seconds; of each the fastest of all rounds, as a machine that
has other work only ever slows down. `--avx2` holds both to AVX2. PyTorch's maps lie as diffusers
leaves them, and with channels last (`--channels-last`), which oneDNN likes better.
"""

import argparse
import json
import os
import subprocess
import time


def options():
    parser = argparse.ArgumentParser(description="mos on the processor beside PyTorch")
    parser.add_argument("mos")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", nargs="*", help="unet, vae, text, step")
    parser.add_argument("--channels-last", action="store_true")
    return parser.parse_args()


def torch_work(what, channels_last):
    """What PyTorch does for one measurement of `what`."""
    import torch

    import pass_cost
    import step_cost

    if what == "step":
        return step_cost.networks(256)[0]
    torch.set_grad_enabled(False)
    run = {"unet": pass_cost.unet, "vae": pass_cost.vae, "text": pass_cost.text}[what](256)
    if channels_last and what != "text":
        network = next(c.cell_contents for c in run.__closure__ if isinstance(
            c.cell_contents, torch.nn.Module
        ))
        network.to(memory_format=torch.channels_last)
    return run


def main():
    chosen = options()
    environment = dict(os.environ, RAYON_NUM_THREADS=str(chosen.threads))
    os.environ.update(OMP_NUM_THREADS=str(chosen.threads), MKL_NUM_THREADS=str(chosen.threads))
    if chosen.avx2:
        environment["MOS_CPU_LEVEL"] = "avx2"
        os.environ.update(
            DNNL_MAX_CPU_ISA="AVX2",
            ATEN_CPU_CAPABILITY="avx2",
            MKL_ENABLE_INSTRUCTIONS="AVX2",
        )
    import torch

    torch.set_num_threads(chosen.threads)
    clock = "cpu" if chosen.threads == 1 else "wall"
    now = time.process_time if clock == "cpu" else time.perf_counter

    def ours(what):
        weights = [] if what == "step" else ["--f32"]
        command = [chosen.mos, "--adapter", "cpu", "bench", what, *weights, "--clock", clock]
        command += ["--repeat", "2", "--json"]
        made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return json.loads(made.stdout)["seconds"]

    print(f"| {chosen.threads} thread(s), {clock} seconds | mos | PyTorch | ratio |")
    print("|---|---|---|---|", flush=True)
    for what in chosen.only or ["unet", "vae", "text", "step"]:
        torch.set_grad_enabled(True)
        work = torch_work(what, chosen.channels_last)
        work()
        seconds = [[], []]
        for _ in range(chosen.rounds):
            for _ in range(2):
                start = now()
                work()
                seconds[1].append(now() - start)
            seconds[0].append(ours(what))
        mine, theirs = map(min, seconds)
        print(f"| {what} | {mine:.3f} | {theirs:.3f} | {mine / theirs:.2f} |", flush=True)
        del work


if __name__ == "__main__":
    main()
