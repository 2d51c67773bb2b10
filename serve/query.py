"""Ask base and student the same question: `python serve/query.py "12 + 30 - 7 ="`."""

import sys

import openai


def main(question: str, base_url: str = "http://127.0.0.1:8000/v1") -> None:
    """Print both answers."""
    client = openai.OpenAI(base_url=base_url, api_key="none")
    for model in ("base", "student"):
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=128,
        )
        print(f"{model}:\n{answer.choices[0].message.content}\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit('usage: python serve/query.py "QUESTION" [BASE_URL]')
    main(*sys.argv[1:])
