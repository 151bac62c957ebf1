"""A template for your own locustfile: `locust -f locustfiles/own.py --headless -u 5 -t 60s`."""

from locust import between, task

from bltybench.load import ChatUser


class Own(ChatUser):
    """Requests a word, then streams a sentence about it."""

    wait_time = between(1, 3)

    @task
    def ask(self) -> None:
        """Make two calls, the second from the response to the first."""
        word = self.client.chat([{"role": "user", "content": "Name an animal, in one word."}], max_tokens=8)
        if word.ok:
            question = f"Write a sentence about this animal: {word.text}"
            self.client.chat(
                [{"role": "user", "content": question}], stream=True, max_tokens=60, name="sentence"
            )
