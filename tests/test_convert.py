"""Networks of other programs become layers that compute the same, and come back.

Stand-ins have the attributes of PyTorch's, scikit-learn's and Keras's objects; the last tests take the real ones.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import fnn
from fnn.convert import from_keras, from_safetensors, from_sklearn, from_torch, to_torch

random = np.random.default_rng(0)
X = random.normal(size=(6, 3)).astype(np.float32)


def drawn(*shape, dtype=np.float32):
    return random.normal(size=shape).astype(dtype)


def module(class_name, *entries, **attributes):
    """An object of a class of this name, with these attributes; one with entries is a list."""
    made = type(class_name, (list,) if class_name == "Sequential" else (), {})(*([entries] if entries else []))
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def linear(n_out, n_in, bias=True, dtype=np.float32):
    return module("Linear", weight=drawn(n_out, n_in, dtype=dtype), bias=drawn(n_out, dtype=dtype) if bias else None)


def batch_norm(n, **changed):
    parts = {name: drawn(n) for name in ("weight", "bias", "running_mean")}
    return module("BatchNorm1d", **parts | {"running_var": np.exp(drawn(n)), "eps": 1e-3} | changed)


def evaluated(model, a):
    """What a stand-in of a torch Sequential computes in evaluation mode, in float64."""
    for one in model:
        name = type(one).__name__
        if name == "Sequential":
            a = evaluated(one, a)
        elif name == "Linear":
            a = a @ np.float64(one.weight).T + (0 if one.bias is None else one.bias)
        elif name == "BatchNorm1d":
            a = (a - one.running_mean) / np.sqrt(np.float64(one.running_var) + one.eps)
            a = a * (1 if one.weight is None else one.weight) + (0 if one.bias is None else one.bias)
        elif name == "ReLU":
            a = np.maximum(a, 0)
        elif name == "Tanh":
            a = np.tanh(a)
    return a


def sequential(*entries):
    return module("Sequential", *entries)


RELU, TANH = module("ReLU"), module("Tanh")
DROPOUT, FLATTEN = module("Dropout", p=0.5), module("Flatten", start_dim=1, end_dim=-1)


# -- PyTorch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        (sequential(linear(4, 3), RELU, linear(2, 4, bias=False)), (4, 2)),
        (sequential(linear(4, 3), linear(2, 4), TANH), (4, 2)),
        (sequential(linear(4, 3), batch_norm(4), RELU, DROPOUT, linear(2, 4)), (4, 2)),
        (sequential(linear(4, 3), RELU, batch_norm(4, weight=None, bias=None), linear(2, 4)), (4, 2)),
        (sequential(batch_norm(3), linear(4, 3), batch_norm(4), batch_norm(4), TANH), (4,)),
        (sequential(linear(4, 3), RELU, batch_norm(4), batch_norm(4)), (4, 4)),
        (sequential(linear(4, 3), RELU, batch_norm(4), TANH), (4, 4)),
        (sequential(FLATTEN, sequential(linear(4, 3), TANH), module("Identity"), linear(1, 4)), (4, 1)),
    ],
    ids=[
        "a bias or none",
        "no activation",
        "norm before",
        "norm after",
        "norms first",
        "norm last",
        "norm between",
        "nested",
    ],
)
def test_a_sequential_computes_what_it_does_at_inference(model, sizes):
    params = from_torch(model)
    assert tuple(len(layer.b) for layer in params) == sizes
    assert {layer.W.dtype for layer in params} == {jnp.dtype("float32")}
    np.testing.assert_allclose(fnn.forward(params, X), evaluated(model, X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "activation"),
    [
        (module("ReLU"), fnn.ReLU()),
        (module("LeakyReLU", negative_slope=0.2), fnn.LeakyReLU(0.2)),
        (module("ELU", alpha=1.0), fnn.ELU()),
        (module("Tanh"), fnn.Tanh()),
        (module("Sigmoid"), fnn.Sigmoid()),
        (module("Softplus", beta=1.0, threshold=20.0), fnn.Softplus()),
        (module("Softsign"), fnn.Softsign()),
        (module("SiLU"), fnn.SiLU()),
        (module("GELU", approximate="none"), fnn.GELU()),
        (module("GELU", approximate="tanh"), fnn.GELU(True)),
        (module("Softmax", dim=1), fnn.Softmax()),
        (module("Identity"), fnn.Identity()),
    ],
    ids=lambda value: str(value) if isinstance(value, fnn.Activation) else "",
)
def test_every_activation_has_its_counterpart(given, activation):
    assert from_torch(sequential(linear(4, 3), given))[0].activation == activation


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (linear(2, 3), TypeError, r"model: expected a torch.nn.Sequential, got Linear .*; write torch.nn.Sequential"),
        (
            sequential(linear(4, 3), module("Conv2d")),
            TypeError,
            r"model\[1\]: expected one of Linear.*Conv2d.*no counter",
        ),
        (sequential(linear(4, 3), sequential(module("PReLU"))), TypeError, r"model\[1\]\[0\]: .*PReLU"),
        (sequential(linear(4, 3), module("ELU", alpha=2.0)), TypeError, r"model\[1\]: .*ELU"),
        (sequential(linear(4, 3), module("Softmax", dim=0)), TypeError, r"model\[1\]: .*Softmax"),
        (sequential(linear(4, 3), FLATTEN), TypeError, r"model\[1\]: .*Flatten first.*Flatten"),
        (
            sequential(linear(4, 3), RELU, TANH),
            TypeError,
            r"model\[2\]: expected a linear layer before each.*after ReLU",
        ),
        (sequential(RELU, linear(4, 3)), TypeError, r"model\[0\]: expected a linear layer.*after nothing"),
        (sequential(), TypeError, "model: expected at least one linear layer, got none"),
        (sequential(batch_norm(3, running_mean=None)), ValueError, r"model\[0\]: expected running statistics"),
        (sequential(linear(4, 3), linear(5, 2)), ValueError, r"model\[1\]: expected W \(n_out, 4\).*got W \(5, 2\)"),
        (
            sequential(linear(4, 3), module("ReLU", _forward_hooks={0: print})),
            TypeError,
            r"model\[1\]: .*without hooks",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name_and_place(model, error, message):
    with pytest.raises(error, match=message):
        from_torch(model)


class Tensor:
    """Of torch's tensors, what is read: ``detach``, ``cpu``, ``float``, ``numpy`` and ``dtype``."""

    def __init__(self, array, dtype):
        self.array, self.dtype = array, f"torch.{dtype}"

    def detach(self):
        return self

    cpu = detach

    def float(self):
        return Tensor(self.array.astype(np.float32), "float32")

    def numpy(self):
        if self.dtype == "torch.bfloat16":
            raise TypeError("NumPy has no bfloat16")
        return self.array


def test_half_precision_becomes_float32():
    W = drawn(2, 3).astype(jnp.bfloat16)
    params = from_torch(sequential(module("Linear", weight=Tensor(W, "bfloat16"), bias=None)))
    assert params[0].W.dtype == jnp.float32
    np.testing.assert_array_equal(params[0].W, W.astype(np.float32))


def test_float64_stays_with_x64_and_becomes_float32_with_a_warning_or_on_request_without():
    model = sequential(linear(2, 3, dtype=np.float64))
    with pytest.warns(UserWarning, match="model: float64 becomes float32, because x64 is off; write dtype='float32'"):
        assert from_torch(model)[0].W.dtype == jnp.float32
    assert from_torch(model, dtype="float32")[0].b.dtype == jnp.float32
    with jax.enable_x64(True):
        np.testing.assert_array_equal(from_torch(model)[0].W, model[0].weight)


class Torch:
    """Of torch, what ``to_torch`` calls; the modules are the stand-ins that ``from_torch`` reads."""

    float32 = "float32"

    @staticmethod
    def tensor(array):
        return array

    class nn:
        @staticmethod
        def Linear(n_in, n_out, dtype):
            made = module("Linear", shape=(n_out, n_in), dtype=dtype)
            made.load_state_dict = lambda state: vars(made).update(state)
            return made

        Sequential = staticmethod(sequential)
        ReLU, Tanh, Sigmoid, SiLU, Softsign = (
            partial(module, name) for name in ("ReLU", "Tanh", "Sigmoid", "SiLU", "Softsign")
        )
        ELU = staticmethod(lambda: module("ELU", alpha=1.0))
        GELU = staticmethod(lambda approximate: module("GELU", approximate=approximate))
        LeakyReLU = staticmethod(lambda slope: module("LeakyReLU", negative_slope=slope))
        Softmax = staticmethod(lambda dim: module("Softmax", dim=dim))
        Softplus = staticmethod(lambda: module("Softplus", beta=1.0, threshold=20.0))


@pytest.fixture
def torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", Torch)


ACTIVATIONS = (
    *(fnn.ReLU(), fnn.LeakyReLU(0.2), fnn.ELU(), fnn.Tanh(), fnn.Sigmoid(), fnn.Softplus(), fnn.Softsign()),
    *(fnn.SiLU(), fnn.GELU(), fnn.GELU(True), fnn.Identity(), fnn.Softmax()),
)


def network(*activations):
    return tuple(fnn.Dense(jnp.asarray(drawn(3, 3)), jnp.asarray(drawn(3)), activation) for activation in activations)


def test_there_and_back_changes_nothing(torch):
    params = network(*ACTIVATIONS)
    back = from_torch(to_torch(params))
    assert [layer.activation for layer in back] == list(ACTIVATIONS)
    for one, other in zip(params, back):
        np.testing.assert_array_equal(one.W, other.W)
        np.testing.assert_array_equal(one.b, other.b)


def test_a_stack_is_written_layer_by_layer(torch):
    params = network(*[fnn.Tanh()] * 4)
    assert len(fnn.stack(params)) < 4
    np.testing.assert_array_equal(from_torch(to_torch(fnn.stack(params)))[2].W, params[2].W)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (network(fnn.Gaussian()), TypeError, r"params\[0\].activation: expected one of .*, got Gaussian"),
        (network(fnn.ReLU(), fnn.Sigmoid(beta=2.0)), TypeError, r"params\[1\].activation: .*Sigmoid\(beta=2.0\)"),
        (
            (fnn.Dense(jnp.ones((3, 3)), jnp.ones(3), fnn.ReLU(), fnn.BatchNorm(jnp.ones(3), jnp.ones(3))),),
            ValueError,
            r"params\[0\].norm: expected None, got a batch norm; write to_torch\(fnn.fold",
        ),
        (
            (fnn.Dense(jnp.ones((3, 3), jnp.bfloat16), jnp.ones(3, jnp.bfloat16), fnn.ReLU()),),
            TypeError,
            r"params\[0\].W: expected float32 or float64, got bfloat16",
        ),
        (None, TypeError, "params: expected a tuple of fnn.Dense"),
    ],
)
def test_what_torch_does_not_have_is_refused_by_name(params, error, message, torch):
    with pytest.raises(error, match=message):
        to_torch(params)


def test_without_torch_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="fnn.convert.to_torch needs PyTorch; install torch"):
        to_torch(network(fnn.ReLU()))


# -- scikit-learn ----------------------------------------------------------------------------------------------


def mlp(name="MLPRegressor", activation="relu", out="identity", sizes=(3, 4, 2)):
    coefs = [drawn(*pair) for pair in zip(sizes, sizes[1:])]
    intercepts = [drawn(n) for n in sizes[1:]]
    return module(name, coefs_=coefs, intercepts_=intercepts, activation=activation, out_activation_=out)


@pytest.mark.parametrize(("activation", "out"), [("relu", "identity"), ("tanh", "softmax"), ("logistic", "logistic")])
def test_an_mlps_weights_are_transposed(activation, out):
    given = mlp("MLPClassifier", activation, out)
    params = from_sklearn(given)
    np.testing.assert_array_equal(params[1].W, given.coefs_[1].T)
    hidden, output = (layer.activation for layer in params)
    names = {"relu": fnn.ReLU(), "tanh": fnn.Tanh(), "logistic": fnn.Sigmoid(), "softmax": fnn.Softmax()}
    assert (hidden, output) == (names[activation], names.get(out, fnn.Identity()))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (module("Pipeline"), TypeError, "mlp: expected an MLPClassifier or MLPRegressor, got Pipeline"),
        (module("MLPClassifier"), ValueError, r"mlp: expected a fitted network, .*; write from_sklearn\(mlp.fit"),
        (mlp(out="exp"), TypeError, "mlp.out_activation_: expected one of identity.*, got str 'exp'"),
        (mlp(activation=np.cos), TypeError, "mlp.activation: expected one of identity.*, got ufunc"),
    ],
)
def test_another_estimator_or_activation_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        from_sklearn(given)


# -- Keras -----------------------------------------------------------------------------------------------------


def keras(name, *weights, **config):
    return module(name, get_weights=lambda: list(weights), get_config=lambda: config)


def model(*layers):
    made = type("Sequential", (), {})()
    made.layers = layers
    return made


def dense(n_in, n_out, activation="linear"):
    return keras("Dense", drawn(n_in, n_out), drawn(n_out), activation=activation, use_bias=True)


def test_kernels_are_transposed_and_layers_of_their_own_are_activations():
    layers = (dense(3, 4, "tanh"), dense(4, 4), keras("LeakyReLU", negative_slope=0.3), dense(4, 2), keras("Softmax"))
    params = from_keras(model(keras("Flatten"), *layers, keras("Dropout", rate=0.1)))
    assert [layer.activation for layer in params] == [fnn.Tanh(), fnn.LeakyReLU(0.3), fnn.Softmax()]
    np.testing.assert_array_equal(params[0].W, layers[0].get_weights()[0].T)


@pytest.mark.parametrize(("scale", "center"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_batch_normalization_is_folded_with_its_scale_and_center_if_it_has_them(scale, center):
    moments = [drawn(4), np.exp(drawn(4))]
    trained = [drawn(4) for given in (scale, center) if given]
    norm = keras("BatchNormalization", *trained, *moments, axis=-1, epsilon=1e-3, scale=scale, center=center)
    first = dense(3, 4)
    W, b = first.get_weights()
    wanted = (X @ W + b - moments[0]) / np.sqrt(moments[1] + 1e-3)
    wanted = wanted * (trained[0] if scale else 1) + (trained[-1] if center else 0)
    np.testing.assert_allclose(fnn.forward(from_keras(model(first, norm)), X), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (model(dense(3, 4, "relu6")), TypeError, r"model.layers\[0\].activation: expected one of elu.*got str 'relu6'"),
        (model(keras("Dense", activation="relu")), ValueError, r"layers\[0\]: expected a kernel.*write model.build"),
        (
            model(keras("BatchNormalization", axis=-1)),
            ValueError,
            r"layers\[0\]: expected running stat.*write model.build",
        ),
        (model(dense(3, 4), keras("ReLU", max_value=6.0)), TypeError, r"layers\[1\]: expected one of Dense.*ReLU"),
        (model(dense(3, 4), keras("Conv1D")), TypeError, r"layers\[1\]: .*Conv1D"),
        (dense(3, 4), TypeError, "model: expected a keras.Sequential, got Dense"),
    ],
)
def test_another_layer_or_one_that_is_not_built_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        from_keras(given)


# -- safetensors -----------------------------------------------------------------------------------------------

LAYERS = [("0.weight", "0.bias", fnn.ReLU()), ("2.weight", None, fnn.Identity())]


@pytest.fixture
def foreign(tmp_path):
    tensors = {"0.weight": drawn(4, 3), "0.bias": drawn(4), "2.weight": drawn(2, 4)}
    safetensors.numpy.save_file(tensors, tmp_path / "mlp.safetensors")
    return tmp_path / "mlp.safetensors", tensors


def test_a_foreign_file_is_read_by_the_names_of_its_tensors(foreign):
    path, tensors = foreign
    params = from_safetensors(path, LAYERS)
    np.testing.assert_array_equal(params[1].W, tensors["2.weight"])
    assert [layer.activation for layer in params] == [fnn.ReLU(), fnn.Identity()]
    assert params[1].b.tolist() == [0, 0]


def test_kernels_of_flax_are_read_transposed_and_recognised_where_that_is_not_said(tmp_path):
    path = tmp_path / "flax.safetensors"
    kernel, bias = drawn(3, 4), drawn(4)
    safetensors.numpy.save_file({"kernel": kernel, "bias": bias}, path)
    layers = [("kernel", "bias", fnn.ReLU())]
    np.testing.assert_array_equal(from_safetensors(path, layers, transposed=True)[0].W, kernel.T)
    with pytest.raises(ValueError, match=r"layers\[0\]: .*write transposed=True, because rows and columns are swapped"):
        from_safetensors(path, layers)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([("0.W", "0.bias", fnn.ReLU())], ValueError, r"layers\[0\]: .* holds no '0.W'; it holds 0.bias, 0.weight, 2"),
        ([("0.weight", "0.b", fnn.ReLU())], ValueError, r"layers\[0\]: .* holds no '0.b'"),
        (LAYERS[:1], ValueError, r"layers: .*2.weight; write unused=\['2.weight'\] if"),
        ([("0.weight", "0.bias")], TypeError, r"layers\[0\]: expected \(name of W, name of b or None, activation\)"),
        ([("0.weight", "0.bias", "relu")], TypeError, r"layers\[0\]\[2\]: expected an activation"),
        (
            LAYERS[::-1],
            ValueError,
            r"layers\[1\]: expected W \(n_out, 2\) and b \(n_out,\), got W \(4, 3\) and b \(4,\)",
        ),
    ],
)
def test_names_that_do_not_fit_the_file_are_refused(layers, error, message, foreign):
    with pytest.raises(error, match=message):
        from_safetensors(foreign[0], layers)


def test_tensors_that_are_not_needed_are_said_to_be_unused(foreign):
    assert len(from_safetensors(foreign[0], LAYERS[:1], unused=["2.weight"])) == 1


def test_load_says_how_to_read_a_foreign_file(foreign):
    with pytest.raises(ValueError, match=r"expected format 'fnn 1', got None; .*from_safetensors\(path, layers\)"):
        fnn.checkpoint.load(foreign[0])


# -- the real ones ---------------------------------------------------------------------------------------------


def test_a_real_sequential_of_torch_computes_the_same():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    model = nn.Sequential(
        *(nn.Flatten(), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.GELU("tanh"), nn.Dropout(), nn.Linear(4, 3, bias=False)),
        *(nn.Softplus(), nn.BatchNorm1d(3), nn.Linear(3, 2), nn.Softmax(1)),
    )
    model(torch.tensor(X))  # moves the running statistics
    expected = model.eval()(torch.tensor(X)).detach().numpy()
    params = from_torch(model)
    np.testing.assert_allclose(fnn.forward(params, X), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_torch(params)(torch.tensor(X)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")  # five iterations do not converge
def test_real_mlps_of_scikit_learn_compute_the_same(x64):
    neural_network = pytest.importorskip("sklearn.neural_network")
    x, options = X.astype(np.float64), {"hidden_layer_sizes": (4, 3), "solver": "lbfgs", "max_iter": 5}
    classifier = neural_network.MLPClassifier(**options).fit(x, [0, 1, 2, 0, 1, 2])
    regressor = neural_network.MLPRegressor(activation="tanh", **options).fit(x, x[:, 0])
    np.testing.assert_allclose(fnn.forward(from_sklearn(classifier), x), classifier.predict_proba(x), rtol=1e-12)
    np.testing.assert_allclose(fnn.forward(from_sklearn(regressor), x)[:, 0], regressor.predict(x), rtol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras's own
def test_a_real_sequential_of_keras_computes_the_same(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    layers = keras.layers
    model = keras.Sequential(
        [
            *(keras.Input((3,)), layers.Dense(4, "silu"), layers.BatchNormalization(), layers.Dropout(0.5)),
            *(layers.Dense(3, use_bias=False), layers.LeakyReLU(), layers.Dense(2, activation="softmax")),
        ]
    )
    for weight in model.weights:
        weight.assign(np.abs(drawn(*weight.shape)))
    np.testing.assert_allclose(fnn.forward(from_keras(model), X), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
