"""Tests that `make exhaustive` runs and `make test` leaves out: more of a kind that is tested there by others.

A line is a test's id under tests/, or how some begin. REE_EVERY_SAMPLE=1 runs them with the rest, `-m thorough`
with it runs them alone; one that is named on the command line runs as ever.
"""

import os

EVERY = "REE_EVERY_SAMPLE" in os.environ

THOROUGH = (
    # other recurrent layers, by the kinds of flags that the LSTM and the RNN have
    "compiler/test_recurrent.py::test_an_open_time[GRU-flags4]",
    "compiler/test_recurrent.py::test_an_open_time[GRU-flags5]",
    "compiler/test_recurrent.py::test_an_open_time[LSTM-flags1]",
    "compiler/test_recurrent.py::test_an_open_time[LSTM-flags3]",
    "compiler/test_recurrent.py::test_an_open_batch[GRU-flags5]",
    "compiler/test_recurrent.py::test_an_open_batch[LSTM-flags1]",
    "compiler/test_recurrent.py::test_half_precision_rounds_as_the_fixed_layer[GRU-flags2-",
    "compiler/test_recurrent.py::test_half_precision_rounds_as_the_fixed_layer[LSTM-flags0-dtype1]",
    "compiler/test_recurrent.py::test_dropout_between_layers_in_training[GRU]",
    "compiler/test_recurrent.py::test_dropout_between_layers_in_training[RNN]",
    "kernels/test_macros.py::test_samples_by_interpreter_and_kernels[gru]",
    "kernels/test_macros.py::test_samples_by_interpreter_and_kernels[rnn]",
    "compiler/test_torch_places.py::test_grid_sample[reflection]",
    # interpreted; PTX of these operators is executed by test_ptx_device.py, of such a step by benchmarks/ptx.py
    "gpu/test_interpreted.py::test_operators[attention]",
    "gpu/test_interpreted.py::test_operators[convolution]",
    "gpu/test_interpreted.py::test_operators[linear_i8]",
    "gpu/test_interpreted.py::test_operators[sort]",
    "gpu/test_interpreted.py::test_an_ops_trace_is_verified",
    "gpu/test_interpreted.py::test_a_model_has_the_same_io_root",
    "gpu/test_training.py::test_a_transformer",
    "gpu/test_interpreted.py::test_tree_hash[20557]",
    "gpu/test_interpreted.py::test_tree_hash[2559]",
    # on the other chain they are played in `make test`
    "e2e/test_disputes.py::test_a_liar_at_any_depth[embedded-softmax]",
    "e2e/test_disputes.py::test_a_run_on_other_data[embedded-batch]",
    "e2e/test_disputes.py::test_a_run_on_other_data[anvil-first",
    "e2e/test_job_commands.py::test_a_job_from_the_command_line[embedded]",
    "e2e/test_job_commands.py::test_deadlines_that_have_passed[embedded]",
    "e2e/test_job_commands.py::test_keys_that_are_none_or_anothers[embedded]",
    "e2e/test_job_commands.py::test_an_artifact_that_is_not_the_jobs[embedded]",
    # three of four operators of a draw, two of four kinds of weather, gas on one set of operands
    "e2e/test_disputes.py::test_a_lie_in_a_drawn_token[exp-embedded]",
    "e2e/test_disputes.py::test_a_lie_in_a_drawn_token[sort-embedded]",
    "e2e/test_disputes.py::test_a_lie_in_a_drawn_token[scatter-embedded]",
    "settlement/test_referee_machine.py::test_watchers_in_any_weather[Flood]",
    "settlement/test_referee_machine.py::test_watchers_in_any_weather[Run]",
    "settlement/test_gas.py::test_gas_on_other_operands",
    "verde/test_derivations.py::test_the_last_entry_is_the_element[linear_i8-(2, 65536)",
    # families and architectures beside others that are alike
    "generation/test_narrow.py::test_a_directory_of_half_precision[qwen2_moe-bfloat16]",
    "generation/test_narrow.py::test_a_directory_of_half_precision[gpt2-bfloat16]",
    "generation/test_narrow.py::test_a_gguf_file_in_blocks[Q4_1-False]",
    "generation/test_forward.py::test_a_family_has_the_logits_of_transformers_and_one_set_of_bits[mistral]",
    "generation/test_forward.py::test_a_family_has_the_logits_of_transformers_and_one_set_of_bits[qwen3]",
    "generation/test_forward.py::test_a_family_has_the_logits_of_transformers_and_one_set_of_bits[mixtral]",
    "generation/test_forward.py::test_a_window_that_the_model_does_not_know_has_no_effect[phi]",
    "generation/test_forward.py::test_a_window_that_the_model_does_not_know_has_no_effect[llama]",
    "embedding/test_embedding.py::test_in_any_company_a_text_has_the_same_bits[roberta]",
    "embedding/test_embedding.py::test_in_any_company_a_text_has_the_same_bits[distilbert]",
    "embedding/test_embedding.py::test_vectors_are_those_of_transformers[mpnet-mean_tokens-True]",
    "embedding/test_embedding.py::test_in_any_company_a_text_has_the_same_bits[mpnet]",
    "compiler/test_torch_values.py::test_every_number_of_half_precision[torch.float16]",
    "ree/test_architectures.py::test_bits_do_not_depend_on_what_is_open[bert]",
    "ree/test_architectures.py::test_bits_do_not_depend_on_what_is_open[resnet]",
    "ree/test_architectures.py::test_half_precision_models[dtype1-",
)  # fmt: skip
