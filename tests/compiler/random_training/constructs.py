# ruff: noqa: E501
"""What programs are made of: each construct writes statements and gives the text of a value of shape (rows, 4)."""

from .writer import Writer, as_class, construct, deep

# layers and arithmetic


@construct(6)
def layer(w):
    return f"torch.tanh({w.linear()}({w.any()}))"


@construct(3)
def pointwise(w):
    f = w.rng.choice(["torch.sigmoid({})", "F.gelu({})", "F.silu({})", "F.relu({})", "F.softplus({})", "({}).sin()",
                      "F.layer_norm({}, (4,))", "torch.softmax({}, 1)", "({}).clamp(-1, 1)", "({}).abs()"])  # fmt: skip
    return f.format(w.any())


@construct(3)
def mixed(w):
    f = w.rng.choice(["{} + {}", "{} * {}", "{} - 0.5 * {}", "torch.where({0} > 0, {0}, {1})", "torch.maximum({}, {})",
                      "torch.cat(({}[:, :2], {}[:, 2:]), 1)"])  # fmt: skip
    return f.format(w.any(), w.any())


@construct()
def weights_read(w):
    layer = w.linear()
    f = w.rng.choice(["F.linear({1}, {0}.weight.detach())", "{1} @ {0}.weight.data", "{1} + {0}.bias", "{1} @ {0}.weight.T",
                      "{1} * {0}.weight[...][0]"])  # fmt: skip
    return f.format(layer, w.any())


@construct()
def tied_weights(w):
    first, second = w.linear(), w.own("nn.Linear(4, 4)")
    w.init.append(f"{second}.weight = {first}.weight")
    return f"{second}({first}({w.any()}).sin())"


@construct()
def frozen_parameter(w):
    name = w.own("nn.Linear(4, 4)", "frozen")
    w.init.append(f"{name}.requires_grad_(False)")
    return f"{name}({w.any()})"


@construct(3)
def batch_norm(w):
    how = w.rng.choice(
        [
            "",
            ", momentum=None",
            ", momentum=0.3",
            ", affine=False",
            ", track_running_stats=False",
            ", eps=0.1",
        ]
    )
    name = w.own(f"nn.BatchNorm1d(4{how})", "norm")
    if w.again:
        w.may("changes inside a checkpoint", "norm")
    return f"{name}({w.any()})"


@construct()
def group_norm(w):
    return f"{w.own('nn.GroupNorm(2, 4)', 'norm')}({w.any()})"


@construct()
def evaluated_norm(w):
    name = w.own("nn.BatchNorm1d(4).eval()", "norm")
    return f"{name}({w.any()})"


@construct()
def dropout(w):
    if w.again:
        return f"F.dropout({w.any()}, 0.5, training=False)"
    p = round(0.2 + 0.001 * len(w.root.body) + 0.01 * w.root.n, 3)  # another one for each call
    form = w.rng.choice(["F.dropout({1}, {0})", "{2}({1})"])
    return form.format(p, w.any(), w.own(f"nn.Dropout({p})") if form[0] == "{" else "")


@construct(0.7)
def recurrent(w):
    return f"{w.own('nn.GRUCell(4, 4)')}({w.any()}, {w.any()})"


# where gradients stop


@construct(3)
def detached(w):
    f = w.rng.choice(["{}.detach() * {}", "{0} + ({1} - {0}).detach()", "{0} + ({0}.round() - {0}).detach()", "{}.data + {}",
                      "{} / ({}.detach().norm() + 1)", "torch.Tensor.detach({}) * {}"])  # fmt: skip
    return f.format(w.any(), w.any())


@construct(4)
@deep
def no_grad(w):
    mode = w.rng.choice(["torch.no_grad()", "torch.no_grad()", "torch.inference_mode()", "torch.set_grad_enabled(False)",
                         "torch.autograd.set_grad_enabled(self.training and False)"])  # fmt: skip
    with w.block(f"with {mode}:", False):
        inner = w.statements(w.rng.randint(1, 2))
    if "inference" in mode:
        w.values = [v for v in w.values if v != inner]
        return f"{w.any()} * 2 + {inner}"
    return f"{w.any()} * {inner}"


@construct()
@deep
def enable_grad(w):
    with w.block("with torch.enable_grad():", True):
        inner = w.statements(1)
    return f"{w.any()} + {inner}"


@construct()
@deep
def switched(w):
    before = w.gradients
    w.say("torch.set_grad_enabled(False)")
    with w.block("", False):
        inner = w.statements(1)
    w.say(f"torch.set_grad_enabled({before})")
    return f"{w.any()} + {inner}"


@construct(2)
@deep
def decorated(w):
    how = w.rng.choice(
        [
            "@torch.no_grad()",
            "@torch.inference_mode()",
            "@torch.enable_grad()",
            "@torch.set_grad_enabled(False)",
        ]
    )
    f = w.function((how,), "enable" in how)
    return f"{w.any()} + {f}({w.any()})"


@construct()
def called_without_gradients(w):
    f = w.rng.choice(["torch.no_grad()(F.linear)({1}, {0}.weight)", "torch.no_grad()({0})({1})",
                      "torch.no_grad()(torch.tanh)({1})"])  # fmt: skip
    return f"{w.any()} * " + f.format(w.linear(), w.any())


@construct(3)
@deep
def checkpointed(w):
    old, w.again = w.again, True
    f = w.function()
    w.again = old
    return f"checkpoint({f}, {w.any()}, use_reentrant=False)"


@construct(2)
@deep
def submodule(w):
    name = w.new("Block")
    decorator = w.rng.choice(["", "", "@without_gradients\n"])
    inner = Writer(w.rng, w)
    inner.gradients = w.gradients and not decorator
    result = inner.statements(w.rng.randint(1, 3))
    w.root.classes.append(decorator + as_class(name, inner, result))
    return f"{w.any()} + {w.own(name + '()', 'block')}({w.any()})"


@construct()
@deep
def forward_hook(w):
    name, kept = w.own("nn.Linear(4, 4)"), w.values
    hook = w.rng.choice(
        [
            "lambda m, i, o: o.detach() + i[0]",
            "lambda m, i, o: o * 2",
            "lambda m, i, o: (o, None)[0]",
        ]
    )
    w.init.append(f"{name}.register_forward_hook({hook})")
    if w.rng.random() < 0.5:
        w.init.append(f"{name}.register_forward_pre_hook(lambda m, i: (i[0].sin(),))")
    w.values = kept
    return f"{name}({w.any()})"


@construct()
@deep
def mapped(w):
    layer = w.linear()
    f = w.rng.choice(["torch.vmap({0})({1})", "torch.vmap(lambda r: torch.tanh(r) * r.detach().sum())({1})",
                      "torch.vmap(lambda r, s: r * s + 1)({1}, {1}.detach())"])  # fmt: skip
    return f.format(layer, w.any())


@construct()
def functional(w):
    layer = w.linear()
    f = w.rng.choice(["p.detach() * 0.5", "p * 2", "p.data"])
    return (
        f"functional_call({layer}, {{k: {f} for k, p in {layer}.named_parameters()}}, ({w.any()},))"
    )


@construct()
def custom_function(w):
    if w.rng.random() < 0.4 or not w.gradients:
        return f"{w.any()} + torch.no_grad()(Reverse.apply)({w.any()})"
    w.may("autograd function Reverse has a backward pass of its own", "Reverse.apply")
    return f"Reverse.apply({w.any()})"


@construct(0.7)
def hooked_tensor(w):
    v = w.new("v")
    w.say(f"{v} = {w.linear()}({w.any()})")
    with w.block(f"if {v}.requires_grad:"):
        w.say(f"{v}.register_hook(lambda g: g * 3)")
    w.may("a hook on the gradient of a tensor", "register_hook")
    return v


@construct(0.7)
def hooked_module(w):
    name = w.own("nn.Linear(4, 4)", "hooked")
    how = w.rng.choice(["weight.register_hook(lambda g: g * 2)", "register_full_backward_hook(lambda m, i, o: (i[0] * 2,))",
                        "weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(2))"])  # fmt: skip
    w.init.append(f"{name}.{how}")
    w.may(r"hooked\d+(\.weight)?' has a (backward )?hook", "")
    return f"{name}({w.any()})"


# states


@construct(4)
def running_mean(w):
    name, v = w.buffer(), w.any()
    form = w.rng.choice([
        "{0}.mul_(0.9).add_({1}.detach().mean(0), alpha=0.1)", "{0} = 0.9 * {0} + 0.1 * {1}.detach().mean(0)",
        "{0}.copy_({0} * 0.5 + {1}.detach()[0])", "{0}[1:3] = {1}.detach()[0, 1:3]", "{0} += {1}.data.sum(0) * 0.1",
        "{0}.lerp_({1}.detach().mean(0), 0.3)", "setattr(self, '{2}', {0} + {1}.detach().amax(0))", "NO_GRAD", "NO_GRAD",
    ])  # fmt: skip
    if form == "NO_GRAD":
        with w.block("with torch.no_grad():"):
            w.say(f"{name}.mul_(0.8).add_({v}.mean(0), alpha=0.2)")
    else:
        w.say(form.format(name, v, name.removeprefix("self.")))
    if w.again:
        w.may("changes inside a checkpoint", "buffer")
    return w.rng.choice(["{0} - {1}", "{0} * ({1} + 1)", "{0} + 0 * {1}"]).format(w.any(), name)


@construct()
def counter(w):
    name = w.buffer("torch.tensor(0)")
    w.say(w.rng.choice([f"{name} += 1", f"{name}.add_(2)", f"{name} = {name} + 1"]))
    if w.again:
        w.may("changes inside a checkpoint", "buffer")
    return f"{w.any()} / (1 + {name})"


@construct()
def averaged_teacher(w):
    student, teacher = w.linear(), w.own("nn.Linear(4, 4)", "frozen")
    w.init.append(f"{teacher}.requires_grad_(False)")
    w.say("with torch.no_grad():")
    w.say(f"    for p, q in zip({teacher}.parameters(), {student}.parameters()):")
    w.say("        p.mul_(0.5).add_(q, alpha=0.5)")
    if w.again:
        w.may("changes inside a checkpoint", "p.mul_")
    return f"{student}({w.any()}) - {teacher}({w.any()}).detach()"


@construct()
def in_place(w):
    v = w.new("v")
    w.say(f"{v} = {w.any()} * 1")
    w.say(w.rng.choice(["{0}.mul_({1})", "{0} += {1}", "{0}[:, 1] = {1}[:, 0]", "{0}[0] = {1}[1].detach()", "F.relu({0}, inplace=True)",
                        "{0}.add_({1}.detach())", "torch.add({0}, {1}, out={0}) if not {0}.requires_grad else None"])
          .format(v, w.any()))  # fmt: skip
    return v


@construct(0.7)
def unseen_in_place(w):
    v = w.new("v")
    w.say(f"{v} = {w.any()} * 1")
    with w.block("with torch.no_grad():"):
        w.say(f"{v}.mul_(2)")
    w.may("a value that carries a gradient is changed in place, unseen", ".mul_(2)")
    return v


@construct(2)
def filled_without_gradients(w):
    v = w.new("v")
    w.say(f"{v} = torch.zeros_like({w.any()})")
    with w.block("with torch.no_grad():"):
        w.say(
            w.rng.choice(
                ["{0}.copy_({1})", "{0}[1] = {1}[0]", "torch.mul({1}, {1}, out={0})"]
            ).format(v, w.any())
        )
    return f"{w.any()} + {v}"


@construct(3)
def parametrized(w):
    name = w.own("nn.Linear(4, 4)", "normed")
    how = w.rng.choice([
        "parametrizations.weight_norm", "parametrizations.spectral_norm", "nn.utils.weight_norm", "nn.utils.spectral_norm",
        "PLAIN", "PLAIN",
    ])  # fmt: skip
    if how == "PLAIN":
        cls = w.rng.choice(["Plain", "Stopped", "Centred", "Counting"])
        w.init.append(f'parametrize.register_parametrization({name}, "weight", {cls}())')
    else:
        w.init.append(f"{name} = {how}({name})")
    if w.again:
        w.may("changes inside a checkpoint", "")
    call = f"{name}({w.any()})"
    if w.rng.random() < 0.3:
        with w.block("with parametrize.cached():"):
            v = w.new("v")
            w.say(f"{v} = {call} + {name}({w.any()})")
        return v
    return call


@construct(0.4)
@deep
def branches(w):
    f, g = w.function(n=1), w.function(n=1)
    w.may("torch.cond in training", "torch.cond")
    return f"torch.cond({w.any()}.sum() > 0, {f}, {g}, ({w.any()},))"


@construct(0.7)
def state_of_python(w):
    name = w.own("0", "count")
    w.say(f"{name} += 1")
    w.may(
        f"'({name.removeprefix('self.')}|[a-z0-9.]*{name.removeprefix('self.')})' changes in the forward pass",
        "+= 1",
    )
    return f"{w.any()} / {name}"
