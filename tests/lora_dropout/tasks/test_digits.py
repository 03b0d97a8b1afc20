import pytest
import torch

from lora_dropout.tasks.digits import digits_source, digits_target, pretrain_digits
from lora_dropout.tasks.vit import VisionTransformer
from lora_dropout.threads import fixed_threads


def keys(images):
    return {image.numpy().tobytes() for image in images}


def unturned(images):
    return images.rot90(-1, dims=(1, 2)).contiguous()


def test_no_test_image_is_ever_seen_in_training():
    source = keys(digits_source()[0])
    test = keys(unturned(digits_target(seed=0).test[0]))
    for seed in range(5):
        target = digits_target(seed=seed)
        train = keys(unturned(target.train[0]))
        validation = keys(unturned(target.validation[0]))
        assert keys(unturned(target.test[0])) == test
        assert not (train & test or validation & test or source & test)
        assert not (train & validation or train & source)


def test_sizes_and_ranges():
    target = digits_target(seed=3, n_train=50, n_validation=40)
    for (images, labels), size in ((target.train, 50), (target.validation, 40), (target.test, 500)):
        assert images.shape == (size, 8, 8) and labels.shape == (size,)
        assert images.min() >= 0.0 and images.max() <= 1.0
        assert set(labels.tolist()) == set(range(10))


def test_seed_names_the_draw():
    assert torch.equal(digits_target(seed=1).train[0], digits_target(seed=1).train[0])
    assert not torch.equal(digits_target(seed=1).train[0], digits_target(seed=2).train[0])


def test_too_many_examples_are_refused():
    with pytest.raises(ValueError, match=r"at most 597, got 500 \+ 100"):
        digits_target(seed=0, n_train=500, n_validation=100)


def test_pretraining_learns_upright_digits_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    model = pretrain_digits(seed=0, epochs=12, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    images, labels = digits_target(seed=0).test
    with torch.no_grad():
        upright = (model(unturned(images)).argmax(1) == labels).double().mean()
    assert upright > 0.5  # chance is 0.1


def test_transformer_refuses_sizes_that_do_not_divide():
    with pytest.raises(ValueError, match="patch_size must divide 8, got patch_size=3"):
        VisionTransformer(patch_size=3)
    with pytest.raises(ValueError, match="heads must divide width=10, got heads=4"):
        VisionTransformer(width=10)


def test_pretraining_does_not_depend_on_the_number_of_threads():
    models = []
    for number in (1, 2):
        with fixed_threads(number):
            models.append(pretrain_digits(seed=0, epochs=3, progress=False).state_dict())
            assert torch.get_num_threads() == number
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name]), name
