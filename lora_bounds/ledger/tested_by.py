"""Where each claim is tested, below ``tests/lora_bounds``: one place to keep in step with them.

Besides these, `test_ledger.py::test_the_evidence_gives_the_recorded_verdict` runs for every claim.
"""

_PROOFS = "proofs/test_proof_statements.py::test_"
_EVERY_PROOF = "proofs/test_proof_engine.py::test_every_proof_holds_within_a_minute"
_REPLAY = "counterexamples/test_replays.py::test_it_refutes"
_REFUTED_BY_HAND = "counterexamples/test_replays.py::test_a_few_by_hand"
_SPARSITY = "bounds/test_sparsity.py::test_"
_STABILITY = "bounds/test_stability.py::test_"
_GENERALIZATION = "bounds/test_risk.py::test_"
_ENSEMBLE = "bounds/test_ensemble_risk.py::test_"
_PAC_BAYES = "bounds/test_pac_bayes.py::test_"
_LINEAR = "exact/test_linear.py::test_"
_REGIMES = "exact/test_ridge_regimes.py::test_"
_MEASURED = "test_measured.py::test_it_finds_what_is_planted_and_refutes_the_reverse"

TESTED_BY: dict[str, tuple[str, ...]] = {
    "Eq. 2": (
        f"{_SPARSITY}drop_and_keep_probability_match_balls",
        f"{_SPARSITY}rate_and_drop_probability_are_inverse",
    ),
    "Eq. 9": (f"{_SPARSITY}dropped_norm_needs_no_independence", _REPLAY),
    "Audit 1": (f"{_SPARSITY}inner_maximum_of_eq_10", _EVERY_PROOF),
    "Eq. 10": (f"{_SPARSITY}inner_maximum_of_eq_10",),
    "Eq. 11": (
        f"{_SPARSITY}penalty_is_lambda_times_the_dropped_norm",
        f"{_SPARSITY}root_of_the_weight",
    ),
    "Eq. 11, independent entries": (f"{_SPARSITY}mask_moments_match_enumeration",),
    "Audit 2": (
        f"{_SPARSITY}mask_moments_match_enumeration",
        f"{_PROOFS}number_of_kept_entries_in_another_shape",
    ),
    "Remark p -> 1": (
        f"{_SPARSITY}induced_regularizer_diverges_at_one_while_eq_11_does_not",
        _REPLAY,
    ),
    "Audit 12": (f"{_SPARSITY}induced_regularizer_diverges_at_one_while_eq_11_does_not",),
    "T5": (f"{_SPARSITY}mask_moments_match_enumeration",),
    "T5, rank masks": (f"{_PROOFS}rank_masks_with_generic_factors", _REPLAY),
    "Lemma A.1": (
        f"{_STABILITY}lemma_a1_is_prop_4_2_at_full_dropout",
        f"{_PROOFS}half_of_lemma_a1_suffices_for_quadratics",
        _REPLAY,
    ),
    "Prop 4.2": (
        f"{_STABILITY}prop_4_2_is_just_above_its_exact_value",
        "exact/test_ridge.py::test_prop_4_2_holds_with_the_lipschitz_constant_of_the_segment",
        _REPLAY,
    ),
    "Audit 4": (
        "exact/test_logistic.py::test_solution_in_one_dimension_to_many_digits",
        _REPLAY,
        "counterexamples/test_replays.py::test_the_stated_search_finds_what_is_stored",
    ),
    "Lemma A.1, eta of the plain loss": ("test_ledger.py::test_plain_slope_in_lemma_a1_by_hand",),
    "Lemma A.1, half the constant": (f"{_PROOFS}half_of_lemma_a1_suffices_for_quadratics",),
    "Audit 3": (
        f"{_STABILITY}lipschitz_constant_on_a_ball_and_at_the_optimum",
        f"{_PROOFS}repaired_stability_and_radius_for_absolute_loss",
    ),
    "Prop 4.2, self-consistent": (
        f"{_STABILITY}self_consistent_is_four_times_the_naive_reading",
        f"{_STABILITY}smaller_radius_gives_a_smaller_bound",
    ),
    "Audit 5": (
        f"{_STABILITY}uniform_stability_holds_for_refits_of_logistic_regression",
        "exact/test_logistic.py::test_leave_one_out_solves_the_smaller_problem",
        f"{_STABILITY}uniform_stability_is_just_above_its_exact_value",
        f"{_PROOFS}repaired_stability_and_radius_for_absolute_loss",
    ),
    "Audit 6": (f"{_PROOFS}gauge_directions_are_flat_and_the_least_eigenvalue_is_not_positive",),
    "Prop 4.2, monotone": (f"{_STABILITY}monotone_in_every_argument",),
    "Audit 8": (_REPLAY, "counterexamples/test_exact_models.py::test_ridge_and_its_stability"),
    "Lemma 4.3": (
        f"{_GENERALIZATION}bounds_are_just_above_their_exact_values",
        f"{_PROOFS}lemma_4_3_with_constant_eight",
        _REPLAY,
    ),
    "Thm 4.4": (
        f"{_GENERALIZATION}theorem_4_4_is_just_above_its_exact_value",
        f"{_GENERALIZATION}theorem_4_4_is_lemma_4_3_at_the_paper_s_stability",
    ),
    "Audit 7": (
        f"{_GENERALIZATION}theorem_4_4_never_falls_under_its_floor_and_pays_one_over_delta",
        f"{_GENERALIZATION}least_delta_separates_vacuous_from_useful",
    ),
    "Audit 7, price of delta": (
        f"{_GENERALIZATION}theorem_4_4_never_falls_under_its_floor_and_pays_one_over_delta",
    ),
    "Eq. 8": (f"{_ENSEMBLE}excess_is_exact_over_all_ensembles_of_mask_draws",),
    "Thm 4.5": (
        f"{_ENSEMBLE}squared_losses",
        f"{_ENSEMBLE}logistic_losses",
        f"{_ENSEMBLE}cross_entropy_losses",
    ),
    "A.3": (_REPLAY, _REFUTED_BY_HAND),
    "Audit 10, mask-free network": (_REPLAY, _REFUTED_BY_HAND),
    "Audit 10, 0-1 error": (_REPLAY,),
    "Audit 11": (f"{_ENSEMBLE}expected_loss_of_subsets_does_not_rise_with_their_size",),
    "T4": (
        f"{_ENSEMBLE}one_member_has_no_gap",
        f"{_ENSEMBLE}expected_loss_of_subsets_does_not_rise_with_their_size",
    ),
    "Uniform stability bound": (
        f"{_GENERALIZATION}bounds_are_just_above_their_exact_values",
        f"{_GENERALIZATION}bounds_hold_for_the_mean_of_a_sample",
        f"{_PROOFS}theorem_12_bounded_difference",
    ),
    "Feldman-Vondrak": (
        f"{_GENERALIZATION}bounds_are_just_above_their_exact_values",
        f"{_GENERALIZATION}feldman_vondrak_2019_is_just_above_its_exact_value",
    ),
    "Bousquet-Klochkov-Zhivotovskiy": (
        f"{_GENERALIZATION}bounds_are_just_above_their_exact_values",
        f"{_GENERALIZATION}sharper_bounds_win_where_they_should",
    ),
    "PAC-Bayes dropout, KL": (
        f"{_PAC_BAYES}dropout_kl_is_the_mean_over_masks_of_gaussian_divergences",
    ),
    "PAC-Bayes kl, price of the logarithm": (
        f"{_PAC_BAYES}maurer_s_constant_holds_from_one_example_on",
        f"{_PROOFS}kl_moment_against_the_binomial_sum",
    ),
    "PAC-Bayes dropout": (
        f"{_PAC_BAYES}kl_bound_is_just_above_its_exact_value",
        f"{_PAC_BAYES}kl_inverse_is_just_above_the_solution",
        f"{_PAC_BAYES}dropout_bound_pays_for_every_width",
        f"{_PAC_BAYES}geometric_widths",
    ),
    "Held-out, Hoeffding": (
        "bounds/test_held_out.py::test_hoeffding_is_just_outside_its_exact_value",
    ),
    "Held-out, Clopper-Pearson": (
        "bounds/test_held_out.py::test_clopper_pearson_inverts_the_binomial_tail",
    ),
    "Gap is replace-one stability": (_EVERY_PROOF,),
    "T1": (_REPLAY, "counterexamples/test_exact_models.py::test_gap_over_all_samples"),
    "T2": (f"{_GENERALIZATION}theorem_4_4_never_falls_under_its_floor_and_pays_one_over_delta",),
    "T2, the gap itself": ("test_ledger.py::test_the_gap_shrinks_like_one_over_n",),
    "T3, training risk": (f"{_PROOFS}training_risk_rises_for_a_loss_that_is_not_convex",),
    "T3, test risk": (_REPLAY,),
    "Def 4.1": (
        "exact/test_ridge.py::test_leave_one_out_matches_refits",
        "exact/test_ridge.py::test_fit_matches_an_augmented_least_squares",
    ),
    "Linear layer, LoRA Dropout": (
        f"{_LINEAR}moments_and_objective_match_enumeration",
        f"{_PROOFS}variance_table_in_another_shape",
    ),
    "Linear layer, activation dropout": (f"{_LINEAR}moments_and_objective_match_enumeration",),
    "Linear layer, rank masks": (f"{_LINEAR}moments_and_objective_match_enumeration",),
    "Linear layer, entrywise masks": (f"{_LINEAR}moments_and_objective_match_enumeration",),
    "Linear layer, objective": (
        f"{_LINEAR}moments_and_objective_match_enumeration",
        f"{_LINEAR}objective_is_risk_plus_the_induced_regularizer",
    ),
    "Linear layer, induced regulariser": (
        f"{_SPARSITY}induced_regularizer_is_half_the_variance_of_all_masks",
        f"{_SPARSITY}isotropic_regularizer_is_eq_11_with_lambda_settled",
    ),
    "Linear layer, dropout at rate q": (
        f"{_LINEAR}isotropic_inputs_make_lora_dropout_ordinary_dropout_at_rate_q",
        f"{_LINEAR}correlated_inputs_tell_the_two_laws_apart",
        _REPLAY,
    ),
    "Linear layer, minimiser": (
        f"{_LINEAR}full_rank_minimizer_beats_descent",
        f"{_LINEAR}rank_one_minimizer_beats_descent_from_many_starts",
    ),
    "Linear layer, raw update": (
        f"{_LINEAR}trained_update_solves_the_normal_equations_over_all_masks",
        f"{_LINEAR}trained_update_from_least_squares_to_single_variables",
    ),
    "Linear layer, free ensemble": (f"{_LINEAR}moments_and_objective_match_enumeration",),
    "Fig. 4, order from scale alone": ("test_ledger.py::test_order_of_fig_4_by_simulation",),
    "Held-out yardstick": (
        "bounds/test_compare.py::test_each_row_is_the_bound_itself",
        "bounds/test_compare.py::test_nonvacuous_from_is_the_first",
    ),
    "Audit 9": (
        f"{_REGIMES}risks_against_simulated_inputs",
        f"{_REGIMES}the_gap_turns_where_the_ratio_says",
        f"{_REGIMES}critical_ratio_is_the_largest_on_a_finer_grid",
        f"{_REGIMES}rising_rates_are_those_of_the_gap",
        "exact/test_spectra.py::test_moments_match_their_closed_forms",
        "exact/test_spectra.py::test_two_inputs_by_integrating_the_joint_density",
        "exact/test_ridge.py::test_expected_risks_match_a_sum_over_unit_noise",
    ),
    "Audit 9, every law": (f"{_REGIMES}heavy_tails_by_hand",),
    "Audit 9, many examples": (f"{_REGIMES}gaussian_inputs_have_fourth_moment_three",),
    "T1, few examples": (
        f"{_REGIMES}with_few_examples_it_never_turns",
        f"{_REGIMES}the_golden_threshold_of_the_limit",
    ),
    "T1, limit": ("exact/test_spectra.py::test_the_exact_spectrum_tends_to_the_limit",),
    "T1, LoRA Dropout": (
        f"{_REGIMES}sampled_risks_against_fits_of_simulated_targets",
        f"{_REGIMES}the_sample_tends_to_the_limit",
        f"{_REGIMES}the_limit_turns_where_the_ratio_says",
    ),
    "Digits, gap over p": (_MEASURED,),
    "Digits, gap over p, corrupted labels": (_MEASURED,),
    "Digits, gap with and without dropout": (_MEASURED,),
    "Digits, training loss over p": (_MEASURED,),
    "Digits, test loss over p": (_MEASURED,),
    "Digits, test loss over p, corrupted labels": (_MEASURED,),
    "Digits, gap over n": (_MEASURED,),
    "Digits, stability over n": (_MEASURED,),
    "Digits, stability over n, plain LoRA": (_MEASURED,),
    "Digits, stability against p": (_MEASURED,),
    "Digits, example against seed": (_MEASURED,),
    "Digits, ensemble size": (_MEASURED,),
    "Digits, ensemble against mean network": (_MEASURED,),
    "Digits, test loss against LoRA": (_MEASURED,),
    "Digits, accuracy against LoRA": (_MEASURED,),
    "Digits, calibration against LoRA": (_MEASURED,),
    "Digits, bounds against gap": ("test_measured.py::test_bounds_by_hand",),
    "Digits, Thm 4.4 says something": ("test_measured.py::test_bounds_by_hand",),
}
