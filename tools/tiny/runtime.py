"""What every stage of training shares: the device, the clock, averages of weights, and a state to resume from."""

import math
import os
import signal
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist

from .optimiser import Muon, is_matrix


class Session:
    """One run of the tool: where it works, on what, and until when.

    `total` seconds are divided over the stages by `SHARES`; `limit` is how long this process may run. A stage that
    meets the limit saves itself and goes on in the next run of the same command.
    """

    SHARES = {
        "data": 0.02, "vae": 0.26, "towers": 0.07, "unet": 0.52, "adapter": 0.05, "judge": 0.03,
        "identity": 0.05,
    }  # fmt: skip

    def __init__(
        self,
        work,
        total,
        limit,
        device=None,
        compile_models="auto",
        threads=None,
        small=False,
        rank=0,
        workers=1,
    ):
        self.work = Path(work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.total = total
        self.started = time.monotonic()
        self.deadline = self.started + limit
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.cuda = self.device.type == "cuda"
        self.compile_models = self.cuda if compile_models == "auto" else compile_models == "yes"
        self.bf16_pays = not self.cuda and multiplies_bf16()
        self.small = small
        self.replays = self.cuda and not small  # whether passes are recorded once and replayed
        self.to_deadline = (
            False  # stages last until the deadline instead of their share of the total
        )
        self.rank, self.workers = rank, workers  # of the processes that train one model together
        self.kept = {}  # what several stages of one run share: the pictures on the device
        torch.manual_seed((time.time_ns() + 7919 * rank) % 2**31)
        if self.cuda:
            torch.backends.cudnn.benchmark = True
        else:
            torch.set_num_threads(threads or os.cpu_count())

    def budget(self, stage):
        return self.SHARES[stage] * self.total

    def clock(self):
        """Seconds as the budgets count them: on a CPU those that this process computed, for it may
        run beside others and wait for them."""
        return time.monotonic() if self.cuda else time.process_time()

    def out_of_time(self):
        return time.monotonic() >= self.deadline

    def batch(self, on_gpu, on_cpu):
        return 4 if self.small else on_gpu if self.cuda else on_cpu

    def autocast(self):
        """bf16 on a GPU, and on CPUs that multiply matrices of it (AMX), where a step takes half to
        two thirds as long. On others its convolution gradients were 2.8 times slower than f32's."""
        if not (self.cuda or self.bf16_pays):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def place(self, module):
        """Moves a module to the device, convolutions in the layout that is fastest there."""
        module = module.to(self.device)
        return module.to(memory_format=torch.channels_last) if self.cuda else module

    def compiled(self, module):
        """The module compiled for fixed shapes where that is wanted and works; else the module itself."""
        if not self.compile_models:
            return module
        fast = torch.compile(module, dynamic=False)

        def call(*args):
            if self.compile_models:
                try:
                    return fast(*args)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:
                    self.give_up_compiling(error)
            return module(*args)

        return call

    def give_up_compiling(self, error):
        """From here on nothing is compiled: a compiler's failure must not end a timed run."""
        self.compile_models = False
        self.say(f"compiling failed, going on without: {type(error).__name__}: {str(error)[:300]}")

    def agree(self, values):
        """The first process's numbers, in all of them."""
        if self.workers == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return shared.tolist()

    def average_gradients(self, parameters):
        """Over all processes."""
        if self.workers == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.workers
        for g, part in zip(gradients, flat.split([g.numel() for g in gradients])):
            g.copy_(part.view_as(g))

    def wait_for(self, *stages):
        """Until the files `STAGE.ended` are there, where stages run side by side in processes of their own."""
        while self.to_deadline and not all(
            (self.work / f"{stage}.ended").exists() for stage in stages
        ):
            time.sleep(0.2)

    def say(self, *words):
        if self.rank > 0:
            return
        print(f"[{time.monotonic() - self.started:7.1f} s]", *words, flush=True)


def multiplies_bf16():
    """Whether this CPU has matrix instructions for bf16 that PyTorch uses."""
    known = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(known and known())


@contextmanager
def at_most(seconds):
    """Raises TimeoutError in the main thread after so many seconds."""

    def late(*_):
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Average:
    """An exponential moving average of parameters that warms up with their number of steps."""

    def __init__(self, parameters, decay):
        self.parameters = list(parameters)
        self.values = [p.detach().clone() for p in self.parameters]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self):
        self.steps += 1
        rate = 1 - min(self.decay, (self.steps + 1) / (self.steps + 15))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], rate)

    @torch.no_grad()
    def swap(self):
        """Exchanges the averages with the parameters, in place; calling it again undoes it."""
        for p, v in zip(self.parameters, self.values):
            kept = p.clone()
            p.copy_(v)
            v.copy_(kept)


def learning_rate(progress, iteration, warm_up, flat=0.0, floor=0.01):
    """Share of the peak rate: a linear warm-up, flat until `flat` of the way, then a cosine down to `floor`."""
    ramp = min(1.0, (iteration + 1) / warm_up)
    t = max(0.0, (progress - flat) / (1 - flat))
    return ramp * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, t))))


class _Recorded:
    """The forward and backward pass of one loss as a CUDA graph over inputs that are copied into place."""

    def __init__(self, loss_of, inputs, forget_gradients):
        self.key = (loss_of, *(x.shape for x in inputs))
        self.inputs = [x.clone() for x in inputs]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # what is chosen or compiled at first must not be recorded
            for _ in range(3):
                forget_gradients()
                loss_of(*self.inputs)[0].backward()
        torch.cuda.current_stream().wait_stream(aside)
        forget_gradients()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            loss, self.values = loss_of(*self.inputs)
            loss.backward()

    def replay(self, inputs):
        for kept, x in zip(self.inputs, inputs):
            kept.copy_(x)
        self.graph.replay()
        return self.values


class Trainer:
    """Modules under training with their optimiser, average and resumable state.

    `groups` are (parameters, rate factor) pairs; all of them are averaged. `steps()` yields the progress 0..1 of the
    stage's time budget, over all runs, until it is used up or the session ends.
    """

    SAVE_EVERY = 120

    def __init__(
        self,
        session,
        stage,
        modules,
        groups,
        rate,
        decay=0.999,
        weight_decay=1e-3,
        betas=(0.9, 0.99),
        budget=None,
    ):
        self.session, self.stage, self.modules, self.rate = session, stage, modules, rate
        self.budget = session.budget(stage) if budget is None else budget
        self.path = session.work / f"{stage}.pt"
        self.parameters = [p for parameters, _ in groups for p in parameters]
        embeddings = {
            id(m.weight)
            for module in modules.values()
            for m in module.modules()
            if isinstance(m, torch.nn.Embedding)
        }
        matrices, others = [], []
        for parameters, factor in groups:
            parameters = list(parameters)
            chosen = [p for p in parameters if is_matrix(p) and id(p) not in embeddings]
            taken = {id(p) for p in chosen}
            matrices.append({"params": chosen, "factor": factor})
            others.append(
                {"params": [p for p in parameters if id(p) not in taken], "factor": factor}
            )
        self.optimisers = [
            Muon(
                [g for g in matrices if g["params"]] or [{"params": [torch.zeros(1)]}],
                rate,
                weight_decay=weight_decay,
                rank=session.rank,
                workers=session.workers,
                add_up=dist.all_reduce,
            ),
            torch.optim.AdamW(
                [g for g in others if g["params"]],
                lr=rate,
                betas=betas,
                weight_decay=weight_decay,
                fused=True,
            ),
        ]
        self.average = Average(self.parameters, decay)
        self.iteration, self.spent, self.samples, self.done, self.note = 0, 0.0, 0, False, {}
        self._losses, self._said = [], time.monotonic()
        self._recorded = None
        self._load()
        if session.workers > 1:
            for p in self.parameters:
                dist.broadcast(p.data, 0)
            self.average = self.average if self.iteration else Average(self.parameters, decay)

    def _load(self):
        if not self.path.exists():
            return
        state = torch.load(self.path, map_location=self.session.device, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        if state.get("average"):
            for value, saved in zip(self.average.values, state["average"]):
                value.copy_(saved)
            for optimiser, saved in zip(self.optimisers, state["optimisers"]):
                optimiser.load_state_dict(saved)
        else:  # weights alone were brought here
            self.average = Average(self.parameters, self.average.decay)
        self.average.steps = self.iteration = state["iteration"]
        self.spent, self.samples, self.note = state["spent"], state["samples"], state["note"]
        self.done = state["done"] and (
            self.spent >= self.budget or self.note.get("adopted", False)
        )  # there may be more time now

    def _finite(self):
        """Whether all weights are still numbers."""
        return bool(
            torch.stack(torch._foreach_norm([p.detach() for p in self.parameters])).isfinite().all()
        )

    def _go_back(self):
        """After a step that broke the weights: the last saved state again, and half the rate."""
        self.rate /= 2
        self.session.say(
            f"{self.stage}: the loss is no number any more; going back, rate {self.rate:g} from here"
        )
        if not self.path.exists():
            raise SystemExit(
                f"{self.stage}: nothing to go back to; start again with a smaller rate"
            )
        spent = self.spent
        self._load()
        self.spent = spent

    def save(self):
        """Writes the state beside its name, then renames it; `final` weights are the averages."""
        if not self._finite():
            return self._go_back()
        if self.session.rank > 0:
            return
        self.average.swap()
        final = {
            name: {k: v.clone() for k, v in module.state_dict().items()}
            for name, module in self.modules.items()
        }
        self.average.swap()
        state = {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "final": final, "average": self.average.values, "optimisers": [o.state_dict() for o in self.optimisers],
            "iteration": self.iteration, "spent": self.spent, "samples": self.samples, "done": self.done, "note": self.note,
        }  # fmt: skip
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.path)

    def steps(self):
        if self.session.to_deadline:  # a share of the way may count as gone already
            gone = self.note.get("gone", 0.0)
            self.budget = max(1.0, self.session.deadline - time.monotonic()) / (1 - gone)
            self.spent = gone * self.budget
        last = self.session.clock()
        # the first time soon: something to go back to
        saved = time.monotonic() - max(0, self.SAVE_EVERY - 20)
        while True:
            now = self.session.clock()
            self.spent, last = self.spent + now - last, now
            over = self.spent >= self.budget or self.session.out_of_time()
            late = float(time.monotonic() - saved > self.SAVE_EVERY)
            self.spent, over, save = self.session.agree([self.spent, float(over), late])
            if over:
                break
            if save:
                self.save()
                saved, last = time.monotonic(), self.session.clock()
            yield self.spent / self.budget
        self.done = self.spent >= self.budget
        self.save()
        self.session.say(
            f"{self.stage}: {self.iteration} steps, {self.samples} samples, {self.spent:.0f} of {self.budget:.0f} s"
        )

    def step(self, loss, samples, rate):
        """One optimiser step at `rate` times the peak rate."""
        self._forget_gradients()
        try:
            loss.backward()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the backward pass is compiled only now
            if not self.session.compile_models:
                raise
            self.session.give_up_compiling(error)
            return
        self._update(samples, rate)

    def repeat(self, loss_of, inputs, samples, rate):
        """A step on the loss that `loss_of(*inputs)` gives with a dict of values, which are returned.

        On a GPU the passes are recorded once and replayed, which saves launching thousands of small kernels one by one:
        what changes from step to step must be among the `inputs`, tensors of the same shapes."""
        if not self.session.replays:
            loss, values = loss_of(*inputs)
            self.step(loss, samples, rate)
            return values
        if self._recorded is None or self._recorded.key != (loss_of, *(x.shape for x in inputs)):
            self.record_if_possible(loss_of, inputs)
            if not self.session.replays:
                return self.repeat(loss_of, inputs, samples, rate)
        values = self._recorded.replay(inputs)
        self._update(samples, rate)
        return values

    def record(self, loss_of, inputs):
        """Prepares `repeat` for inputs of these shapes."""
        self._recorded = None
        self._recorded = _Recorded(loss_of, inputs, self._forget_gradients)

    def record_if_possible(self, loss_of, inputs):
        """The same; where it fails, this session goes on without recording, and says so."""
        try:
            self.record(loss_of, inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self.session.replays = False
            self.session.say(
                f"{self.stage}: recording failed, going on without: {type(error).__name__}: {str(error)[:300]}"
            )

    def seconds_of_replay(self, times=8):
        """How long the recorded passes take, at best."""
        best = math.inf
        for _ in range(times):
            torch.cuda.synchronize()
            started = time.monotonic()
            self._recorded.replay(())
            torch.cuda.synchronize()
            best = min(best, time.monotonic() - started)
        return best

    def _forget_gradients(self):
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)

    def _update(self, samples, rate):
        """The optimiser's step with the gradients at hand."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.rate * group.get("factor", 1.0) * rate
        self.session.average_gradients(self.parameters)
        torch.nn.utils.clip_grad_norm_([p for p in self.parameters if p.grad is not None], 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.average.update()
        self.iteration += 1
        self.samples += samples * self.session.workers

    def report(self, every=15.0, **values):
        """Keeps values (tensors stay on the device) and says their means every so many seconds."""
        self._losses.append(
            {k: v.detach().clone() if torch.is_tensor(v) else v for k, v in values.items()}
        )
        if time.monotonic() - self._said < every:
            return
        recent = self._losses[-50:]
        means = {}
        for key in values:
            kept = [float(row[key]) for row in recent if key in row]
            means[key] = sum(kept) / len(kept)
        self._losses, self._said = [], time.monotonic()
        text = "  ".join(f"{k} {v:.4f}" for k, v in means.items())
        self.session.say(
            f"{self.stage} {100 * self.spent / self.budget:5.1f} %  step {self.iteration}  {text}"
        )


def final_weights(session, stage, name):
    """The averaged weights that a stage ended with (or has reached so far)."""
    path = session.work / f"{stage}.pt"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run the stage '{stage}' first")
    state = torch.load(path, map_location=session.device, weights_only=True)
    return state.get("final", state["modules"])[name]
