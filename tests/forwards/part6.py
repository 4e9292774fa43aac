"""Part 6, networks."""

import torch
from hypothesis import strategies as st

from byhand.jacobian import jacobian
from forwards.inputs import Case, Rule, arrays, probabilities

# --- 61 ------------------------------------------------------------------------------------------


def two_layer(x, W0, W1, t):
    h = x @ W0
    a = torch.relu(h)
    z = a @ W1
    return h, a, z, torch.softmax(z, dim=0), -torch.sum(t * torch.log_softmax(z, dim=0))


@st.composite
def two_layer_cases(draw):
    D, H, K = (draw(st.integers(1, 4)) for _ in range(3))
    x = draw(arrays((D,), draw(st.sampled_from([1.0, 2.0**-20, 8.0])), exact=True))
    W0 = draw(arrays((D, H), exact=True))
    W1 = draw(arrays((H, K), 0.125, exact=True))
    return Case((x, W0, W1, draw(probabilities(K))))


def two_layer_jacobians(rules, x, W0, W1, t):
    dL_ds, ds_dz, dz_da, da_dh, dh_dW0, dz_dW1 = rules.two_layer_jacobians(x, W0, W1, t)
    of_W0, of_W1 = jacobian(lambda W0, W1: two_layer(torch.tensor(x.copy()), W0, W1, torch.tensor(t))[-1], W0, W1)
    dL_dz = dL_ds @ ds_dz
    return [(dL_dz @ dz_da @ da_dh @ dh_dW0, of_W0), (dL_dz @ dz_dW1, of_W1)]


# --- 66 ------------------------------------------------------------------------------------------


def log_joint(logits, mu, log_sigma, t):
    return torch.log_softmax(logits, 1) + torch.distributions.Normal(mu, torch.exp(log_sigma)).log_prob(t[:, None])


def responsibilities(logits, mu, log_sigma, t):
    return torch.softmax(log_joint(logits, mu, log_sigma, t), 1)


def mixture_nll(logits, mu, log_sigma, t, *, reduction="mean"):
    weights = torch.distributions.Categorical(logits=logits)
    normal = torch.distributions.Normal(mu, torch.exp(log_sigma))
    paid = -torch.distributions.MixtureSameFamily(weights, normal).log_prob(t)
    return paid.mean() if reduction == "mean" else paid.sum()


@st.composite
def mixture_cases(draw, reductions=("mean", "sum")):
    """Scores near and far apart, targets near and far from every mean."""
    N, K = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    logits = draw(arrays((N, K), draw(st.sampled_from([2.0**-20, 1.0, 1000.0]))))
    t = draw(arrays((N,), draw(st.sampled_from([1.0, 1000.0]))))
    options = {"reduction": draw(st.sampled_from(reductions))} if reductions else {}
    return Case((logits, draw(arrays((N, K))), draw(arrays((N, K))), t), options)


def mixture_jacobians(rules, logits, mu, log_sigma, t):
    def forward(logits, mu, log_sigma):
        return mixture_nll(logits, mu, log_sigma, torch.tensor(t.copy()))

    references = jacobian(forward, logits, mu, log_sigma)
    return list(zip(rules.mixture_nll_jacobians(logits, mu, log_sigma, t), references, strict=True))


RULES = {
    "61-two-layer": {
        "two_layer": Rule(two_layer, two_layer_cases(), two_layer_cases(), labels=(3,), jacobians=two_layer_jacobians),
    },
    "66-mixture-density": {
        "log_joint": Rule(log_joint, mixture_cases(reductions=()), has_vjp=False),
        "responsibilities": Rule(responsibilities, mixture_cases(reductions=()), has_vjp=False),
        "mixture_nll": Rule(
            mixture_nll, mixture_cases(), mixture_cases(reductions=()), labels=(3,), jacobians=mixture_jacobians
        ),
    },
}
