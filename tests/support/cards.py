"""Cards as people write them: of models and of datasets."""

from typing import Final

PLAIN: Final = "---\nlanguage: en\nlicense: mit\n---\n\n# My model\n\nHello.\n"

TRANSFORMERS: Final = """---
language:
- en
- fr
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags:
- text-generation
- conversational
- text-generation
datasets:
- HuggingFaceH4/ultrachat_200k
- openai/gsm8k
metrics:
- accuracy
base_model: HuggingFaceTB/SmolLM2-135M
base_model_relation: finetune
---
# SmolLM2 135M, tuned

```python
# not the title
```
"""

LLAMA: Final = """---
language: [en, de, fr, it, pt, hi, es, th]
pipeline_tag: text-generation
license: llama3.1
extra_gated_prompt: >-
  ### LLAMA 3.1 COMMUNITY LICENSE AGREEMENT

  "Agreement" means: the terms & conditions
extra_gated_fields:
  First Name: text
  Date of birth: date_picker
  Job title:
    type: select
    options:
      - Student
      - Other
widget:
- example_title: Hello
  messages:
  - role: user
    content: Hey my name is Julien! How are you?
inference:
  parameters:
    max_new_tokens: 300
    stop: ["<|end_of_text|>", "<|eot_id|>"]
---
## Model Information
"""

CUSTOM_LICENSE: Final = """---
license: other
license_name: coqui-public-model-license
license_link: https://coqui.ai/cpml
library_name: coqui
pipeline_tag: text-to-speech
---
# ⓍTTS
"""

ADAPTER: Final = """---
base_model: meta-llama/Llama-3.1-8B
library_name: peft
tags:
- lora
- base_model:adapter:meta-llama/Llama-3.1-8B
---
"""

MERGE: Final = """---
base_model:
- mistralai/Mistral-7B-v0.1
- teknium/OpenHermes-2.5-Mistral-7B
tags: [mergekit, merge]
license: apache-2.0
---
"""

TRAINED: Final = """---
license: apache-2.0
tags:
- generated_from_trainer
datasets:
- emotion
metrics:
- accuracy
- f1
model-index:
- name: distilbert-base-uncased-finetuned-emotion
  results:
  - task:
      name: Text Classification
      type: text-classification
    dataset:
      name: emotion
      type: emotion
      config: split
      split: validation
      revision: 5503434ddd753f426f4b38109466949a1217c2bb
      args: split
    metrics:
    - name: Accuracy
      type: accuracy
      value: 0.9245
    - name: F1
      type: f1
      value: 0.9246822140432118
      verified: true
---
# distilbert-base-uncased-finetuned-emotion
"""

LEADERBOARD: Final = """---
model-index:
  - name: Yi-34B
    results:
      - task:
          type: text-generation
        dataset:
          name: ai2_arc
          type: ai2_arc
        metrics:
          - name: AI2 Reasoning Challenge (25-Shot)
            type: AI2 Reasoning Challenge (25-Shot)
            value: 64.59
            args: {num_few_shot: 25}
        source:
          name: Open LLM Leaderboard
          url: https://huggingface.co/spaces/HuggingFaceH4/open_llm_leaderboard
      - task: {type: text-generation, name: Text Generation}
        dataset: {name: MBPP, type: mbpp}
        metrics:
        - {type: pass@1, value: 20.0 ± 1.2, config: strict}
---
"""

SEVERAL_MODELS: Final = """---
model-index:
- name: a
  results: &results
  - task: {type: fill-mask}
    dataset: {name: D, type: d}
    metrics: [{type: loss, value: 1e-05}, {type: loss, value: 3}]
- name: b
  results: *results
---
"""

DIFFUSERS: Final = """---
license: openrail++
tags:
- text-to-image
- stable-diffusion
---

# SD-XL 1.0-base Model Card
"""

WINDOWS: Final = "\ufeff---\r\nlicense: mit\r\ntags:\r\n- a\r\n- b\r\n---\r\n\r\n# CRLF\r\n"

DATASET: Final = """---
annotations_creators:
- crowdsourced
language_creators:
- found
language:
- en
license:
- cc-by-4.0
- mit
multilinguality:
- monolingual
size_categories:
- 10K<n<100K
source_datasets:
- extended|wikipedia
task_categories:
- question-answering
task_ids:
- extractive-qa
paperswithcode_id: squad
pretty_name: SQuAD
dataset_info:
  config_name: plain_text
  features:
  - name: id
    dtype: string
  - name: answers
    sequence:
    - name: text
      dtype: string
  splits:
  - name: train
    num_bytes: 79346108
    num_examples: 87599
  - name: validation
    num_bytes: 10472984
    num_examples: 10570
  download_size: 16278203
  dataset_size: 89819092
configs:
- config_name: plain_text
  data_files:
  - split: train
    path: plain_text/train-*
  - split: validation
    path: plain_text/validation-*
train-eval-index:
- config: plain_text
  task: question-answering
  col_mapping: {question: question}
---

# Dataset Card for SQuAD
"""

CONFIGS: Final = """---
license: cc0-1.0
configs:
- config_name: default
  data_files: "data/*.csv"
- config_name: pair
  data_dir: pair
  data_files:
  - a.csv
  - b.csv
- config_name: split
  data_files:
  - split: train
    path: [x/a.jsonl, x/b.jsonl]
  - split: test
    path: x/c.jsonl
- config_name: mapping
  data_files: {train: train.csv, test: [test.csv]}
---
"""

INDENTED_START: Final = "\n\n---\ntitle: x\nlicense: unknown\n---   \nrest\n---\n"

NO_METADATA: Final = "# Only a title\n\nand text\n"

MODELS: Final = {
    "plain": PLAIN,
    "transformers": TRANSFORMERS,
    "llama": LLAMA,
    "custom-license": CUSTOM_LICENSE,
    "adapter": ADAPTER,
    "merge": MERGE,
    "trained": TRAINED,
    "leaderboard": LEADERBOARD,
    "several-models": SEVERAL_MODELS,
    "diffusers": DIFFUSERS,
    "windows": WINDOWS,
    "indented-start": INDENTED_START,
    "no-metadata": NO_METADATA,
}
DATASETS: Final = {"dataset": DATASET, "configs": CONFIGS, "plain": PLAIN}
