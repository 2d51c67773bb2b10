// Asks two models the same question. Model text only ever becomes textContent, never markup; the
// key stays in its field: it is not stored.
"use strict";

const $ = (id) => document.getElementById(id);

function headers() {
  const sent = { "Content-Type": "application/json" };
  if ($("key").value) sent["Authorization"] = `Bearer ${$("key").value}`;
  return sent;
}

async function call(path, body) {
  const options = { headers: headers() };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  const response = await fetch(path, options);
  const data = await response.json().catch(() => ({}));
  if (!response.ok) {
    const message = data.error ? data.error.message : response.statusText;
    throw new Error(`${response.status}: ${message}`);
  }
  return data;
}

async function listModels() {
  try {
    const { data } = await call("/v1/models");
    const names = data.map((model) => model.id);
    for (const [id, place] of [["left", 0], ["right", 1]]) {
      const chosen = $(id).value || names[Math.min(place, names.length - 1)];
      $(id).replaceChildren(...names.map((name) => new Option(name, name)));
      $(id).value = chosen;
    }
    $("status").textContent = "";
  } catch (error) {
    $("status").textContent = `Models cannot be listed (${error.message})`;
  }
}

async function answer(side) {
  const model = $(side).value;
  $(`${side}-name`).textContent = model;
  $(`${side}-answer`).textContent = "...";
  try {
    const start = performance.now();
    const data = await call("/v1/chat/completions", {
      model,
      messages: [{ role: "user", content: $("question").value }],
      max_tokens: Number($("max-tokens").value),
      temperature: Number($("temperature").value),
    });
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    $(`${side}-answer`).textContent = data.choices[0].message.content;
    $(`${side}-name`).textContent = `${model} (${data.usage.completion_tokens} tokens, ${seconds} s)`;
  } catch (error) {
    $(`${side}-answer`).textContent = `Error ${error.message}`;
  }
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("send").disabled = true;
  if (!$("left").value) await listModels();
  if ($("left").value) await Promise.all([answer("left"), answer("right")]);
  $("send").disabled = false;
});
$("key").addEventListener("change", listModels);
listModels();
